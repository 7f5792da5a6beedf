"""Masks that the published implementations drew from known seeds, reproduced from the same draws."""

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from d2v.core.masks import BlockMasker, Draw, cover_spans, rectangles

DATA = Path(__file__).parent / "data"
SEEDED = json.loads((DATA / "masks.json").read_text())["seeded_examples"]["draws"]
RULES = json.loads((DATA / "masks_v1.json").read_text())


def generator(seed: int, epoch: int, sample: int) -> np.random.Generator:
    return np.random.default_rng(int(hash((seed, epoch, sample)) % 1e6))


def covered(starts: Any, lengths: Any, t: int) -> list[int]:
    hidden = cover_spans(torch.tensor(np.array(starts))[None], torch.tensor(np.array(lengths))[None], t)
    return hidden[0].nonzero().flatten().tolist()


def speech_spans(source: np.random.Generator, t: int, case: dict[str, Any], kwargs: dict[str, Any]) -> list[int]:
    """Hidden positions of one row before counts are made equal (order of draws: u, lengths where they vary, starts)."""
    length = case["mask_length"]
    n = max(kwargs.get("min_masks", 0), int(case["mask_prob"] * t / length + source.random()))
    lengths = np.full(n, length)
    if kwargs.get("mask_type") == "normal":
        lengths = np.rint(source.normal(length, kwargs["mask_other"], size=n)).astype(int).clip(min=1)
    elif kwargs.get("mask_type") == "poisson":
        lengths = source.poisson(length, size=n)
    shortest = lengths.min()
    if t - shortest <= n:
        shortest = t - n - 1
    return covered(source.choice(t - shortest, n, replace=False), lengths, t)


@pytest.mark.parametrize("case", RULES["span_masks"], ids=lambda case: f"{case['shape']} {case['kwargs']}")
def test_spans_of_1_0(case: dict[str, Any]) -> None:
    kwargs = case["kwargs"]
    rows = []
    for sample, pad in zip(case["ids"], case["pad"] or [0] * len(case["ids"]), strict=True):
        source = generator(case["seed"], case["epoch"], sample)
        rows.append(speech_spans(source, case["shape"][1] - pad, case, kwargs))
    # From here on the original uses the last row's generator for every row.
    if kwargs.get("require_same_masks", True):
        target = (max if kwargs.get("add_masks") else min)(map(len, rows))
        for i, row in enumerate(rows):
            if len(row) > target:
                rows[i] = source.choice(row, target, replace=False).tolist()
            elif len(row) < target:
                others = np.setdiff1d(np.arange(case["shape"][1]), row)
                rows[i] = row + source.choice(others, target - len(row), replace=False).tolist()
            if kwargs.get("mask_dropout"):
                holes = round(len(rows[i]) * kwargs["mask_dropout"])
                rows[i] = np.setdiff1d(rows[i], source.choice(sorted(rows[i]), holes, replace=False)).tolist()
    assert [sorted(row) for row in rows] == case["masked"]


@pytest.mark.parametrize("case", [case for case in SEEDED if case["generator"] == "spans"], ids=str)
def test_spans_of_2_0(case: dict[str, Any]) -> None:
    rows = []
    for sample in case["ids"]:
        source = generator(case["seed"], case["update"], sample)
        rows.append(speech_spans(source, case["positions"], case, {"min_masks": 1}))
    target = min(map(len, rows))
    rows = [source.choice(row, target, replace=False).tolist() if len(row) > target else row for row in rows]
    recorded = [[i for i, bit in enumerate(mask) if bit == "1"] for mask in case["masks"]]
    assert [sorted(row) for row in rows] == recorded


@pytest.mark.parametrize("case", RULES["text_masks"], ids=lambda case: f"{case['epoch']} {case['kwargs']}")
def test_text_spans_of_1_0(case: dict[str, Any]) -> None:
    kwargs, pad = case["kwargs"], 1
    length = kwargs.get("mask_multiple_length", 1)
    for index, (target, source_ids) in enumerate(zip(case["tgt"], case["src"], strict=True)):
        source = generator(case["seed"], case["epoch"], index)
        n = int(kwargs["mask_prob"] * len(target) / length + source.random())
        starts = source.choice(len(target), n, replace=False)
        lengths = np.full(n, length)
        if "mask_stdev" in kwargs:
            lengths = np.rint(source.normal(length, kwargs["mask_stdev"], size=n)).astype(int)
        chosen = covered(starts, lengths, len(target))
        assert chosen == [i for i, token in enumerate(target) if token != pad]
        if not kwargs["leave_unmasked_prob"] and not kwargs["random_token_prob"]:
            assert chosen == [i for i, token in enumerate(source_ids) if token == RULES["text_mask_idx"]]


def boxes(size: int, wanted: int, least: int, most: int) -> tuple[list[int], list[list[float]]]:
    """BEiT's block masks in plain Python: the mask, and four numbers that make the rectangle of each attempt."""
    hidden: set[int] = set()
    attempts = []
    while len(hidden) < wanted:
        cap = min(wanted - len(hidden), most)
        for _ in range(10):
            u, v = random.random(), random.random()
            area = least + (cap - least) * u
            aspect = math.exp(math.log(0.3) + (math.log(1 / 0.3) - math.log(0.3)) * v)
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height >= size or width >= size:
                attempts.append([u, v, 0.0, 0.0])
                continue
            top, left = random.randint(0, size - height), random.randint(0, size - width)
            attempts.append([u, v, (top + 0.5) / (size - height + 1), (left + 0.5) / (size - width + 1)])
            cells = {y * size + x for y in range(top, top + height) for x in range(left, left + width)} - hidden
            if 1 <= len(cells) <= cap:
                hidden |= cells
                break
        else:
            break
    return sorted(hidden), attempts


@pytest.mark.parametrize("case", RULES["beit_block_masks"], ids=lambda case: f"seed {case['seed']}")
def test_rectangles_of_1_0(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    kwargs = case["kwargs"]
    size, wanted, least = kwargs["input_size"], kwargs["num_masking_patches"], kwargs["min_num_patches"]
    most = kwargs.get("max_num_patches")
    random.seed(case["seed"])
    masks, attempts = zip(*(boxes(size, wanted, least, most or wanted) for _ in case["masks"]), strict=True)
    assert list(masks) == case["masks"]  # so the plain form is right, and its attempts can be trusted

    def recorded(draw: Draw, b: int, num_masks: int, n: int, *, stream: int) -> torch.Tensor:
        # A row that makes no attempt any more is not asked for.
        return torch.tensor([row[stream] if stream < len(row) else [math.nan] * n for row in attempts])

    monkeypatch.setattr(rectangles, "bits", recorded)
    monkeypatch.setattr(rectangles, "uniform", lambda numbers: numbers)
    masker = BlockMasker(num_masked=wanted, min_per_block=least, max_per_block=most)
    hidden = masker(len(masks), (size, size), draw=Draw(seed=0, update=0, ids=torch.arange(len(masks)))).hidden
    assert [row.nonzero().flatten().tolist() for row in hidden] == case["masks"]
