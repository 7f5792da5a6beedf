"""Distance bias against a loop over positions."""

import math
from types import SimpleNamespace

import pytest
import torch

from d2v.core.nn import Alibi

PUBLISHED = {
    1: [2**-8],
    4: [2**-2, 2**-4, 2**-6, 2**-8],
    12: [*(2.0**-i for i in range(1, 9)), 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5],
    16: [2 ** (-i / 2) for i in range(1, 17)],
}


def placed(position, grid, num_prefix_tokens=0):
    return SimpleNamespace(position=position, grid=grid, num_prefix_tokens=num_prefix_tokens)


def by_loop(position, grid, slopes, scale, distance):
    table = torch.zeros(len(slopes), len(position), len(position))
    for h, slope in enumerate(slopes):
        for i, a in enumerate(position):
            for j, b in enumerate(position):
                if len(grid) == 1:
                    apart = abs(a - b)
                else:
                    steps = abs(a // grid[1] - b // grid[1]), abs(a % grid[1] - b % grid[1])
                    apart = sum(steps) if distance == "manhattan" else math.hypot(*steps)
                table[h, i, j] = -slope * apart * scale[h]
    return table


@pytest.mark.parametrize("heads", PUBLISHED)
def test_slopes(heads):
    assert Alibi(heads).slopes.tolist() == pytest.approx(PUBLISHED[heads])


@pytest.mark.parametrize("grid", [(12,), (3, 4)])
@pytest.mark.parametrize("distance", ["manhattan", "euclidean"])
def test_a_visible_subset_is_rows_and_columns_of_the_full_table(grid, distance):
    alibi = Alibi(6, distance=distance)
    alibi.scale.data = torch.rand_like(alibi.scale) + 0.5
    full = alibi(placed(None, grid))(0).table()
    assert full.shape == (1, 6, 12, 12)
    position = torch.tensor([[0, 2, 3, 11], [1, 5, 6, 9]])
    visible = alibi(placed(position, grid))(0).table()
    assert visible.shape == (2, 6, 4, 4)
    for row, places in enumerate(position.tolist()):
        assert torch.equal(visible[row], full[0][:, places][:, :, places])
        expected = by_loop(places, grid, alibi.slopes.tolist(), alibi.scale[0].tolist(), distance)
        torch.testing.assert_close(visible[row], expected)


def test_extra_tokens_are_at_no_distance():
    alibi = Alibi(2)
    bias, plain = (alibi(placed(torch.tensor([[0, 2, 5]]), (6,), e))(0).table() for e in (2, 0))
    assert bias.shape == (1, 2, 5, 5)
    assert torch.equal(bias[..., 2:, 2:], plain)
    assert not bias[..., :2, :].any()
    assert not bias[..., :, :2].any()


def test_negative_scales_give_no_bias_and_no_gradient():
    alibi = Alibi(3)
    alibi.scale.data = torch.tensor([[-1.0, 0.5, -0.1]])
    bias = alibi(placed(None, (4,)))(0).table()
    assert not bias[0, 0].any()
    assert not bias[0, 2].any()
    assert bias[0, 1].any()
    bias.sum().backward()
    assert alibi.scale.grad[0, 0] == alibi.scale.grad[0, 2] == 0
    assert alibi.scale.grad[0, 1] != 0


def test_a_scale_for_each_layer_and_head():
    alibi = Alibi(2, num_layers=3)
    alibi.scale.data = torch.arange(1.0, 7.0).view(3, 2)
    bias = alibi(placed(None, (4,)))
    unit = Alibi(2)(placed(None, (4,)))(0).table()
    for layer in range(3):
        torch.testing.assert_close(bias(layer).table(), unit * alibi.scale[layer][None, :, None, None])
    assert bias(1) is bias(1)  # made once


def test_one_scale_for_all():
    alibi = Alibi(2, per_head=False, scale=2.0)
    bias = alibi(placed(None, (4,)))
    assert alibi.scale.shape == (1, 1)
    torch.testing.assert_close(bias(0).table(), 2 * Alibi(2)(placed(None, (4,)))(0).table())
    assert bias(7) is bias(0)  # one table for whatever layer
    assert not Alibi(2, learned=False).scale.requires_grad


def test_refusals():
    with pytest.raises(ValueError, match=r"distance='chebyshev'.*'manhattan'"):
        Alibi(2, distance="chebyshev")
