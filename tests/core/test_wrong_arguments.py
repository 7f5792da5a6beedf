"""Pieces put together by hand: what does not fit is refused by the argument's name, in one line."""

import numpy as np
import pytest
import torch
from torch import nn

from d2v.core import ConvDecoder, EMATeacher, MaskedHead, RandomMasker, SpanMasker, TargetAverager
from d2v.core.masks import BlockMasker, Draw, InverseBlockMasker, Mask
from d2v.core.model import Encoded

GENERATOR = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("decay", [0.999, 1, 0, np.float32(0.5), np.float64(0.5), torch.tensor(0.5), lambda n: 0.5])
def test_decays(decay):
    student = nn.Linear(2, 2)
    teacher = EMATeacher(student, decay)
    teacher.update(student, 1)
    expected = decay(1) if callable(decay) and not isinstance(decay, torch.Tensor) else float(decay)
    assert teacher.schedule(1) == pytest.approx(expected)


@pytest.mark.parametrize("decay", [1.5, -0.1, float("nan"), "x", None, True, torch.tensor([0.1, 0.2])])
def test_what_is_no_decay(decay):
    with pytest.raises(ValueError, match=r"^schedule="):
        EMATeacher(nn.Linear(2, 2), decay)


@pytest.mark.parametrize("layers", [[0, 0], [1, 2, 1], [], [-1], [0.5], ["1"]])
def test_layers_that_cannot_be_averaged(layers):
    with pytest.raises(ValueError, match="layers"):
        TargetAverager(layers)


def test_layers_of_any_whole_number():
    assert TargetAverager(np.arange(3)).layers == (0, 1, 2)


def test_an_averager_is_used_again_and_says_what_it_lacks():
    averager = TargetAverager([0, 2])
    y = torch.randn(2, 5, 8)
    for _ in range(2):
        for layer in (0, 2):
            averager(layer, y, 0)
        averager.finish()
    averager(2, y, 0)
    with pytest.raises(RuntimeError, match=r"layers \[0\]"):
        averager.finish()
    averager(0, y, 0)
    with pytest.raises(RuntimeError, match="layer 0 was added twice"):
        averager(0, y, 0)


@pytest.mark.parametrize("shape", [(1, 5, 8), (2, 5, 1), (2, 4, 8)])
def test_layer_results_are_not_broadcast(shape):
    averager = TargetAverager([0, 1])
    averager(0, torch.randn(2, 5, 8), 0)
    with pytest.raises(ValueError, match=r"layer 1 has shape.*\(2, 5, 8\)"):
        averager(1, torch.randn(shape), 0)


@pytest.mark.parametrize(("shape", "prefix"), [((5, 8), 0), ((2, 3, 8), 3)])
def test_a_layer_result_has_tokens(shape, prefix):
    with pytest.raises(ValueError, match="layer 0"):
        TargetAverager([0])(0, torch.randn(shape), prefix)


MASKERS = {
    "random": (RandomMasker(mask_prob=0.5), (14,)),
    "span": (SpanMasker(mask_prob=0.5, mask_length=2), (14,)),
    "block": (InverseBlockMasker(mask_prob=0.5, mask_length=2), (4, 4)),
    "rectangle": (BlockMasker(num_masked=4, min_per_block=2), (4, 4)),
}


@pytest.mark.parametrize(("masker", "grid"), MASKERS.values(), ids=MASKERS)
@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"b": 2.0}, "b="),
        ({"b": 0}, "b="),
        ({"b": torch.zeros(2)}, "b="),
        ({"num_masks": 0}, "num_masks="),
        ({"num_masks": -1}, "num_masks="),
        ({"grid": (-14,)}, "grid="),
        ({"grid": (3.0, 4.0)}, "grid="),
        ({"grid": "ab"}, "grid="),
        ({"lengths": [3, 4]}, "lengths"),
        ({"lengths": torch.tensor([3.0, 4.0])}, "lengths"),
        ({"draw": 0}, "draw="),
    ],
)
def test_arguments_of_maskers(masker, grid, change, word):
    given = {"b": 2, "grid": grid, "draw": GENERATOR} | change
    with pytest.raises(ValueError, match=word):
        masker(given.pop("b"), given.pop("grid"), **given)


@pytest.mark.parametrize("name", ["random", "block", "rectangle"])
def test_a_number_is_no_grid_where_it_could_be_a_plane(name):
    with pytest.raises(ValueError, match=r"grid=14 must .*\(h, w\)"):
        MASKERS[name][0](2, 14, draw=GENERATOR)


def test_a_number_is_a_line_where_there_is_nothing_else():
    assert SpanMasker(mask_prob=0.5, mask_length=2)(2, 14, draw=GENERATOR).hidden.shape == (2, 14)


@pytest.mark.parametrize(("masker", "grid"), MASKERS.values(), ids=MASKERS)
def test_numbers_of_numpy_and_lists_are_fine(masker, grid):
    plain = masker(2, grid, num_masks=2, draw=Draw(seed=0, update=0, ids=torch.arange(2)))
    for other in (tuple(map(np.int64, grid)), list(grid), torch.Size(grid)):
        found = masker(
            np.int64(2), other, num_masks=np.int32(2), draw=Draw(seed=0, update=0, ids=torch.arange(2).int())
        )
        assert torch.equal(found.hidden, plain.hidden)


def test_ids_are_a_tensor():
    with pytest.raises(ValueError, match="ids"):
        Draw(seed=0, update=0, ids=[1, 2])


def test_widths_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(2, 5, 6\).*embed_dim=8"):
        ConvDecoder(8, decoder_dim=4, num_layers=1, kernel_size=3)(torch.zeros(2, 5, 6), (5,))
    encoded = Encoded(x=torch.zeros(1, 3, 6), padding=None, num_prefix_tokens=0, grid=(3,))
    with pytest.raises(ValueError, match=r"\(1, 3, 6\).*embed_dim=8"):
        MaskedHead(8)(encoded, Mask(hidden=torch.tensor([[True, False, True]])))
