"""When two tensors agree: one rule for every case."""

import re
import sys
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

_AUDIO_FRONT = re.compile(
    r"^grad\.(layer_norm\.|.*(conv_layers|project_features|relative_positional_encoder|post_extract_proj|pos_conv))"
)
# Nothing uses these: versions, computed indices, and the head inside a complete 1.0 teacher.
UNUSED = re.compile(r"\.version$|relative_position_index$|^(_ema|ema_before)\.final_proj\.|^(after2\.)?ema\.lm_head\.")


def tolerance(name: str) -> float:
    """The bound on max|a - b| / max(max|b|, floor)."""
    if name.startswith("after2."):
        return 1e-4
    if _AUDIO_FRONT.search(name):
        return 5e-5
    return 2e-5 if name.startswith("grad") else 1e-5


def compare(
    expected: Mapping[str, Tensor], produced: Mapping[str, Tensor], slack: float = 1.0
) -> tuple[list[str], dict[str, float]]:
    """Problems in words (none = agreement), and the largest relative difference of each group of names.

    `slack` multiplies the bounds: a tensor that adds up almost to nothing is rounded more coarsely.
    """
    expected = {name: tensor for name, tensor in expected.items() if not UNUSED.search(name)}
    floors: dict[str, float] = defaultdict(float)
    for name, tensor in expected.items():
        floors[_group(name)] = max(floors[_group(name)], 1e-3 * _magnitude(tensor))
    problems = [f"{name} was not produced" for name in expected if name not in produced]
    largest: dict[str, float] = {}
    for name, b in expected.items():
        if name not in produced:
            continue
        a = produced[name].detach()
        if a.shape != b.shape:
            problems.append(f"{name} has shape {tuple(a.shape)}, not {tuple(b.shape)}")
            continue
        difference = _difference(a.double(), b.double(), floors[_group(name)])
        largest[_group(name)] = max(largest.get(_group(name), 0.0), difference)
        if not difference <= slack * tolerance(name):
            problems.append(f"{name} differs by {difference:.2e}")
    return problems, largest


def _group(name: str) -> str:
    return name.split(".")[0]


def _magnitude(tensor: Tensor) -> float:
    finite = tensor.double()[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _difference(a: Tensor, b: Tensor, floor: float) -> float:
    if not torch.equal(a.isfinite(), b.isfinite()) or not torch.equal(a[~a.isfinite()], b[~b.isfinite()]):
        return sys.float_info.max  # not infinity, which JSON does not know
    gap = _magnitude(torch.where(a.isfinite(), a - b, 0.0))
    return 0.0 if gap == 0 else gap / max(_magnitude(b), floor)
