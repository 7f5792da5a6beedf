"""Properties that hold for every masker, and the errors they give."""

import math
from typing import Any
from unittest.mock import patch

import pytest
import torch
from attrs import evolve
from drawing import SPANS, chi_square, draw_for, quick, same
from hypothesis import given
from hypothesis import strategies as st

from d2v.core.masks import (
    BlockMasker,
    ChannelMasker,
    Draw,
    InverseBlockMasker,
    Masker,
    RandomMasker,
    SpanMasker,
    blocks,
)
from d2v.core.masks.masker import lowest

IMAGE = InverseBlockMasker(mask_prob=0.8, mask_length=3, mask_prob_adjust=0.07)
SPEECH = InverseBlockMasker(mask_prob=0.5, mask_length=5, mask_prob_adjust=0.05, inverse=False)
WORDS = SpanMasker(mask_prob=0.35, mask_length=4, min_masks=0, equal_counts=False, reach_end=True)
APART = SpanMasker(mask_prob=0.5, mask_length=4, selection="normal", mask_other=2, no_overlap=True)
TEXT = RandomMasker(mask_prob=0.48)
RECTANGLES = BlockMasker(num_masked=20, min_per_block=4)
ON_LINES: dict[str, Masker] = {
    "image": IMAGE, "speech": SPEECH, "spans": SPANS, "words": WORDS, "apart": APART, "text": TEXT,
    "channels": ChannelMasker(
        positions=SPANS, channels=SpanMasker(mask_prob=0.5, mask_length=8, min_masks=0), embed_dim=64
    ),
}  # fmt: skip
ON_PLANES: dict[str, Masker] = {"image": IMAGE, "speech": SPEECH, "text": TEXT, "rectangles": RECTANGLES}
EQUAL = ("image", "speech", "spans", "apart", "text")

lines = pytest.mark.parametrize("masker", ON_LINES.values(), ids=ON_LINES)
planes = pytest.mark.parametrize("masker", ON_PLANES.values(), ids=ON_PLANES)
lengths_of_samples = st.lists(st.integers(20, 60), min_size=1, max_size=5).map(torch.tensor)


@lines
@given(lengths=lengths_of_samples, m=st.integers(1, 3), seed=st.integers(-(1 << 63), (1 << 63) - 1))
@quick
def test_padding_is_never_hidden_and_shapes_fit(masker: Masker, lengths: torch.Tensor, m: int, seed: int) -> None:
    mask = masker(len(lengths), (60,), num_masks=m, draw=draw_for(len(lengths), seed), lengths=lengths)
    assert mask.hidden.shape == (len(lengths) * m, 60)
    assert mask.num_masks == m
    padding = torch.arange(60) >= lengths.repeat_interleave(m)[:, None]
    assert not (mask.hidden & padding).any()


@pytest.mark.parametrize("name", EQUAL)
@given(lengths=lengths_of_samples, m=st.integers(1, 3), seed=st.integers(0, 1000))
@quick
def test_counts_are_equal(name: str, lengths: torch.Tensor, m: int, seed: int) -> None:
    mask = ON_LINES[name](len(lengths), (60,), num_masks=m, draw=draw_for(len(lengths), seed), lengths=lengths)
    assert mask.visible.shape[0] == len(lengths) * m  # raises where counts differ
    assert len(mask.index) > 0


@given(p=st.floats(0, 0.95), t=st.integers(8, 90), m=st.integers(1, 3), length=st.integers(1, 6))
@quick
def test_counts_are_the_published_floors(p: float, t: int, m: int, length: int) -> None:
    def count(masker: Masker, grid: tuple[int, ...]) -> set[int]:
        return set(masker(3, grid, num_masks=m, draw=draw_for(3)).hidden.sum(1).tolist())

    visible = math.floor(t * (1 - p))
    if visible:
        assert count(RandomMasker(mask_prob=p), (t,)) == {t - visible}
        assert count(InverseBlockMasker(mask_prob=p, mask_length=length), (t,)) == {t - visible}
    hidden = math.floor(t * p)
    assert count(InverseBlockMasker(mask_prob=p, mask_length=length, inverse=False), (t,)) == {hidden}
    plane = math.floor(7 * t * (1 - p))
    if plane:
        assert count(InverseBlockMasker(mask_prob=p, mask_length=length), (7, t)) == {7 * t - plane}


@pytest.mark.parametrize(
    ("masker", "grid", "visible"),
    [
        (IMAGE, (14, 14), 39),
        (InverseBlockMasker(mask_prob=0.75, mask_length=3, mask_prob_adjust=0.1), (14, 14), 49),
        (InverseBlockMasker(mask_prob=0.75, mask_length=3, mask_prob_adjust=0.1), (16, 16), 64),
        (TEXT, (512,), 266),
        (RandomMasker(mask_prob=0.5), (512,), 256),
    ],
)
def test_published_settings_leave_the_published_counts(masker: Masker, grid: tuple[int, ...], visible: int) -> None:
    assert masker(2, grid, num_masks=4, draw=draw_for(2)).visible.shape == (8, visible)


@pytest.mark.parametrize("name", ON_LINES)
def test_a_row_depends_on_its_own_seed_update_id_clone_and_length_alone(name: str) -> None:
    masker: Any = ON_LINES[name]
    lengths, ids = torch.tensor([40, 40, 40]), torch.tensor([3, 9, 4])
    if isinstance(masker, SpanMasker):  # counts of spans are random, so that any two rows may trim each other
        masker = evolve(masker, equal_counts=False)
    elif isinstance(masker, ChannelMasker):
        parts = [evolve(part, equal_counts=False) for part in (masker.positions, masker.channels)]
        masker = evolve(masker, positions=parts[0], channels=parts[1])
    together = masker(3, (60,), num_masks=3, draw=Draw(seed=1, update=2, ids=ids), lengths=lengths)
    alone = masker(1, (40,), num_masks=2, draw=Draw(seed=1, update=2, ids=ids[1:2]), lengths=lengths[:1])
    # Other mates, another place in the batch, more padding, more clones: the first two clones of sample 9 stay.
    assert torch.equal(together.hidden[3:5, :40], alone.hidden)
    if together.channels is not None and alone.channels is not None:
        assert torch.equal(together.channels[3:5], alone.channels)

    for other in (
        Draw(seed=2, update=2, ids=ids),
        Draw(seed=1, update=3, ids=ids),
        Draw(seed=1, update=2, ids=ids + 1),
    ):
        assert not same(together, masker(3, (60,), num_masks=3, draw=other, lengths=lengths))


@pytest.mark.parametrize("name", EQUAL)
def test_trimming_takes_a_part_of_what_a_row_would_hide(name: str) -> None:
    draw, masker = draw_for(2), ON_LINES[name]
    full = torch.tensor([60, 60])
    mates = masker(2, (60,), draw=draw, lengths=torch.tensor([60, 25])).hidden[0]
    own = masker(1, (60,), draw=Draw(seed=0, update=0, ids=draw.ids[:1]), lengths=full[:1]).hidden[0]
    assert mates.sum() < own.sum()
    assert not (mates & ~own).any()


@lines
def test_same_draw_same_mask_and_clones_differ(masker: Masker) -> None:
    first = masker(2, (60,), num_masks=2, draw=draw_for(2))
    assert same(first, masker(2, (60,), num_masks=2, draw=draw_for(2)))
    assert len({tuple(row.tolist()) for row in first.hidden}) == 4


@planes
def test_planes_may_be_rectangular(masker: Masker) -> None:
    mask = masker(64, (5, 12), num_masks=2, draw=draw_for(64))
    assert mask.hidden.shape == (128, 60)
    seen = mask.hidden.view(128, 5, 12).any(0) & ~mask.hidden.view(128, 5, 12).all(0)
    assert seen.all()  # no row or column is left out


@pytest.mark.parametrize("shape", [(5, 12), (12, 5)])
def test_blocks_on_a_plane_are_squares_cut_at_the_border(shape: tuple[int, int]) -> None:
    masker = InverseBlockMasker(mask_prob=0.8, mask_length=3, mask_prob_adjust=0.0)  # floor(60 * 0.2 / 9) = 1 centre
    with patch.object(blocks, "adjusted", wraps=blocks.adjusted) as adjusted:  # counts are made equal afterwards
        masker(400, shape, draw=draw_for(400))
    chosen = adjusted.call_args.args[0].view(400, *shape)
    for plane in chosen:
        y, x = plane.nonzero().unbind(1)
        box = plane[y.min() : y.max() + 1, x.min() : x.max() + 1]
        assert box.all()
        cut_down = bool(y.min() == 0 or y.max() == shape[0] - 1)
        cut_across = bool(x.min() == 0 or x.max() == shape[1] - 1)
        assert box.shape[0] == 3 or (box.shape[0] == 2 and cut_down)
        assert box.shape[1] == 3 or (box.shape[1] == 2 and cut_across)
    assert chosen[:, 0, 0].any()
    assert chosen[:, -1, -1].any()


@planes
@given(lengths=st.lists(st.integers(40, 60), min_size=1, max_size=4).map(torch.tensor), seed=st.integers(0, 1000))
@quick
def test_planes_with_padding(masker: Masker, lengths: torch.Tensor, seed: int) -> None:
    hidden = masker(len(lengths), (5, 12), draw=draw_for(len(lengths), seed), lengths=lengths).hidden
    assert not (hidden & (torch.arange(60) >= lengths[:, None])).any()
    if masker is not RECTANGLES:
        assert hidden.sum(1).unique().numel() == 1


@lines
def test_a_generator_is_a_source(masker: Masker) -> None:
    generator = torch.Generator().manual_seed(3)
    first, second = (masker(2, (60,), num_masks=2, draw=generator) for _ in range(2))
    assert not same(first, second)
    assert same(first, masker(2, (60,), num_masks=2, draw=torch.Generator().manual_seed(3)))
    assert len({tuple(row.tolist()) for row in first.hidden}) == 4


@lines
def test_lengths_may_be_of_any_whole_type(masker: Masker) -> None:
    lengths = torch.tensor([60, 44])
    draw = draw_for(2)
    assert same(masker(2, (60,), draw=draw, lengths=lengths), masker(2, (60,), draw=draw, lengths=lengths.int()))


def test_text_without_padding_awareness_hides_padding() -> None:
    lengths = torch.tensor([60, 30])
    masker = RandomMasker(mask_prob=0.5, pad_aware=False)
    mask = masker(2, (60,), draw=draw_for(2), lengths=lengths)
    assert mask.hidden[1, 30:].any()
    assert same(mask, masker(2, (60,), draw=draw_for(2)))
    assert mask.hidden.sum(1).tolist() == [30, 30]


@given(data=st.data(), rows=st.integers(1, 6), t=st.integers(1, 200))
@quick
def test_lowest_is_exact_with_ties_and_unequal_counts(data: st.DataObject, rows: int, t: int) -> None:
    keys = torch.tensor(data.draw(st.lists(st.integers(0, 50), min_size=rows * t, max_size=rows * t))).view(rows, t)
    count = torch.tensor(data.draw(st.lists(st.integers(0, t), min_size=rows, max_size=rows)))
    chosen = lowest(keys, count)
    assert torch.equal(chosen.sum(1), count)
    assert (keys.where(chosen, -1).amax(1) <= keys.where(~chosen, 99).amin(1)).all()


@pytest.mark.parametrize("axis", ["seed", "update", "id", "clone", "stream", "counter", "purpose"])
def test_draws_are_uniform_along_every_argument(axis: str) -> None:
    n, values = 4096, []
    for i in range(n if axis in ("seed", "update", "stream", "purpose") else 1):
        at = {axis: i}
        draw = Draw(
            seed=at.get("seed", 3), update=at.get("update", 4), purpose=at.get("purpose", 0),
            ids=torch.arange(n) if axis == "id" else torch.tensor([5]),
        )  # fmt: skip
        stream = at.get("stream", 0)
        values.append(draw.bits(n if axis == "clone" else 1, n if axis == "counter" else 1, stream=stream).flatten())
    numbers = torch.cat(values)
    assert numbers.shape == (n,)
    assert numbers.unique().numel() == n
    assert int(numbers.min()) >= 0
    assert int(numbers.max()) < 1 << 53
    for shift in (49, 24, 0):  # highest, middle and lowest bits
        chi_square(torch.bincount((numbers >> shift) & 15, minlength=16))
        pairs = ((numbers[:-1] >> shift) & 7) * 8 + ((numbers[1:] >> shift) & 7)
        chi_square(torch.bincount(pairs, minlength=64))


BAD_CALLS: list[tuple[Masker, dict[str, Any], str]] = [
    (TEXT, {"grid": (0,)}, r"grid=\(0,\) must hold positive sizes"),
    (TEXT, {"grid": (2, 3, 4)}, r"grid=\(2, 3, 4\) must hold"),
    (SPANS, {"grid": (4, 15)}, r"grid=\(4, 15\) must hold positive sizes \(t,\); pass \(h \* w,\)"),
    (RECTANGLES, {"grid": (60,)}, r"grid=\(60,\) must hold positive sizes \(h, w\)"),
    (RECTANGLES, {"grid": (1, 60)}, "both sides must be at least 2"),
    (TEXT, {"b": 0}, "b.*0"),
    (TEXT, {"num_masks": 0}, "num_masks.*0"),
    (TEXT, {"lengths": torch.tensor([60])}, r"lengths must be 2 integers, one per sample, not torch.int64 \(1,\)"),
    (TEXT, {"lengths": torch.tensor([60.0, 60.0])}, "integers, one per sample, not torch.float32"),
    (TEXT, {"lengths": torch.tensor([60, 61])}, r"lengths\[1\]=61 must be from 1 to 60"),
    (TEXT, {"lengths": torch.tensor([0, 60])}, r"lengths\[0\]=0 must be from 1 to"),
    (TEXT, {"lengths": torch.tensor([60, 1])}, "every one of the 1 valid positions of sample 1 .* lower mask_prob"),
    (IMAGE, {"lengths": torch.tensor([4, 60])}, "every one of the 4 valid positions of sample 0 .* lower mask_prob"),
    (RandomMasker(mask_prob=0.99), {}, "every one of the 60 valid positions of sample 0"),
    (SPANS, {"grid": (2,), "b": 40}, r"every one of the 2 valid positions of sample \d+ \(mask 0\) would be hidden"),
    (evolve(SPANS, add_masks=True), {"lengths": torch.tensor([60, 12])}, "sample 1 .* add_masks hides as many"),
    (IMAGE, {"grid": (2, 2)}, r"mask_length=3 is longer than both sides of the grid \(2, 2\)"),
    (RECTANGLES, {"grid": (4, 5)}, "every one of the 20 valid positions of sample 0 .*; lower num_masked"),
    (BlockMasker(num_masked=3, min_per_block=9), {"grid": (3, 3)}, "min_per_block=9 must be below the 9 positions"),
    (TEXT, {"draw": draw_for(3)}, "the draw holds 3 ids for 2 samples"),
]


@pytest.mark.parametrize(("masker", "change", "message"), BAD_CALLS)
def test_bad_calls_say_what_is_wrong(masker: Masker, change: dict[str, Any], message: str) -> None:
    call: dict[str, Any] = {"b": 2, "grid": (60,), "num_masks": 1, "lengths": None} | change
    b, grid = call.pop("b"), call.pop("grid")
    call.setdefault("draw", draw_for(b))
    with pytest.raises(ValueError, match=message):
        masker(b, grid, **call)


@pytest.mark.parametrize(
    ("build", "values", "message"),
    [
        (RandomMasker, {"mask_prob": 1.0}, "mask_prob.*1.0"),
        (RandomMasker, {"mask_prob": float("nan")}, "mask_prob.*nan"),
        (InverseBlockMasker, {"mask_prob": -0.1, "mask_length": 3}, "mask_prob.*-0.1"),
        (InverseBlockMasker, {"mask_prob": 0.5, "mask_length": 0}, "mask_length.*0"),
        (InverseBlockMasker, {"mask_prob": 0.5, "mask_length": 3, "mask_dropout": 2}, "mask_dropout.*2"),
        (SpanMasker, {"mask_prob": 1.5, "mask_length": 3}, "mask_prob.*1.5"),
        (SpanMasker, {"mask_prob": 0.5, "mask_length": 0}, "mask_length.*0"),
        (SpanMasker, {"mask_prob": 0.5, "mask_length": 3, "min_masks": -1}, "min_masks.*-1"),
        (SpanMasker, {"mask_prob": 0.5, "mask_length": 3, "selection": "gamma"}, "selection='gamma'"),
        (SpanMasker, {"mask_prob": 0.5, "mask_length": 3, "min_space": -1}, "min_space.*-1"),
        (SpanMasker, {"mask_prob": 0.5, "mask_length": 3, "mask_other": -1.0}, "mask_other.*-1.0"),
        (
            SpanMasker,
            {"mask_prob": 0.5, "mask_length": 3, "selection": "uniform", "mask_other": 7.0},
            "mask_other=7.0 must not exceed 2 mask_length=6",
        ),
        (SpanMasker, {"mask_prob": 0.5, "mask_length": 3, "add_masks": True, "equal_counts": False}, "add_masks"),
        (SpanMasker, {"mask_prob": 0.5, "mask_length": 3, "no_overlap": True, "reach_end": True}, "choose one"),
        (BlockMasker, {"num_masked": 0, "min_per_block": 4}, "num_masked.*0"),
        (BlockMasker, {"num_masked": 9, "min_per_block": 0}, "min_per_block.*0"),
        (BlockMasker, {"num_masked": 9, "min_per_block": 4, "max_per_block": 3}, "max_per_block=3 is below"),
        (BlockMasker, {"num_masked": 9, "min_per_block": 4, "min_aspect": 0.0}, "min_aspect.*0.0"),
        (ChannelMasker, {"positions": SPANS, "channels": SPANS, "embed_dim": 0}, "embed_dim.*0"),
        (Draw, {"seed": 1 << 63, "update": 0, "ids": torch.tensor([1])}, "seed=.*64 bits"),
        (Draw, {"seed": 0, "update": 0, "ids": torch.tensor([0.5])}, "ids must be integers"),
    ],
)
def test_bad_values_say_what_is_wrong(build: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**values)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("masker", "grid"),
    [*((one, (60,)) for one in ON_LINES.values()), *((one, (8, 9)) for one in ON_PLANES.values())],
    ids=[*(f"line {name}" for name in ON_LINES), *(f"plane {name}" for name in ON_PLANES)],
)
def test_masks_are_the_same_on_every_device(masker: Masker, grid: tuple[int, ...]) -> None:
    ids, lengths = torch.arange(100) * 7 + 3, torch.randint(40, 61, (100,)) if len(grid) == 1 else None
    here = masker(100, grid, num_masks=4, draw=Draw(seed=1, update=2, ids=ids), lengths=lengths)
    there = masker(100, grid, num_masks=4, draw=Draw(seed=1, update=2, ids=ids.cuda()), lengths=lengths)
    assert there.hidden.is_cuda
    assert torch.equal(here.hidden, there.hidden.cpu())
    if here.channels is not None:
        assert torch.equal(here.channels, there.channels.cpu())
