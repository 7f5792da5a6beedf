"""The published Adam by its formula, and the recorded steps that it is compared with."""

import json
from pathlib import Path

import torch

CASE = json.loads((Path(__file__).parent / "core/train/data/adam.json").read_text())
OPTIONS = {"lr": CASE["lr"], "betas": tuple(CASE["betas"]), "eps": CASE["eps"], "weight_decay": CASE["weight_decay"]}


class Formula:
    """The published update of a parameter of its own, in one memory layout, by the formula."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.p = weight.detach().double().contiguous()
        self.m, self.v, self.t = torch.zeros_like(self.p), torch.zeros_like(self.p), 0

    def step(self, g: torch.Tensor) -> torch.Tensor:
        lr, (b1, b2), eps, decay = (OPTIONS[name] for name in ("lr", "betas", "eps", "weight_decay"))
        self.t += 1
        self.m, self.v = b1 * self.m + (1 - b1) * g.double(), b2 * self.v + (1 - b2) * g.double() ** 2
        scale = lr * (1 - b2**self.t) ** 0.5 / (1 - b1**self.t)
        self.p = self.p * (1 - lr * decay) - scale * self.m / (self.v.sqrt() + eps)
        return self.p.float()
