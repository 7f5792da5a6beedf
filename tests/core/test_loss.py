"""The regression loss against plain formulas."""

import math

import pytest
import torch

from d2v.core.loss import RegressionLoss

P = torch.tensor([[0.0, 1.0, -3.0], [2.0, 0.5, 0.25]])
T = torch.tensor([[0.5, -1.0, 1.0], [2.0, 0.0, 0.0]])
X = P - T


def elements(beta: float) -> torch.Tensor:
    if not beta:
        return X**2
    return torch.where(X.abs() < beta, 0.5 * X**2 / beta, X.abs() - 0.5 * beta)


@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0, 2.0])
@pytest.mark.parametrize("scale", [None, 1.0, 0.3])
def test_sum(beta, scale):
    total, count = RegressionLoss(beta=beta, scale=scale)(P, T)
    factor = 1 / math.sqrt(3) if scale is None else scale
    assert count == 2
    assert total.shape == ()
    torch.testing.assert_close(total, factor * elements(beta).sum())


@pytest.mark.parametrize("beta", [0.0, 2.0])
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_mean(beta, scale, weight):
    loss = RegressionLoss(beta=beta, scale=scale, reduction="mean", variance_weight=weight, variance_margin=1.5)
    total, count = loss(P, T)
    std = torch.relu(1.5 - torch.sqrt(P.var(0) + 1e-6)).mean()
    assert count == 1
    torch.testing.assert_close(total, (1.0 if scale is None else scale) * (elements(beta).mean() + weight * std))


def test_scaled_sum_takes_any_shape():
    x, y = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    torch.testing.assert_close(RegressionLoss().scaled_sum(x, y), ((x - y) ** 2).sum() / 2)
    torch.testing.assert_close(RegressionLoss(reduction="mean").scaled_sum(x, y), ((x - y) ** 2).sum())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_float32_inside(dtype):
    x = torch.full((200, 40), 10.0, dtype=dtype)
    total, _ = RegressionLoss(scale=1.0)(x, torch.zeros_like(x))
    assert total.dtype == torch.float32
    assert total.item() == 800_000  # more than half precision holds


def test_autocast_does_not_reach_it():
    x = torch.randn(50, 8)
    plain, _ = RegressionLoss(beta=1.0)(x, -x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, _ = RegressionLoss(beta=1.0)(x, -x)
    assert torch.equal(plain, inside)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_splits_add_up_and_nothing_is_zero(reduction):
    x = torch.zeros(0, 4, requires_grad=True)
    total, count = RegressionLoss(reduction=reduction)(x, torch.zeros(0, 4))
    assert (total.item(), count) == (0.0, 0 if reduction == "sum" else 1)
    total.backward()
    whole, _ = RegressionLoss()(P, T)
    parts = [RegressionLoss()(P[i : i + 1], T[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(sum(part for part, _ in parts), whole)
    assert sum(count for _, count in parts) == 2


def test_one_row_has_no_std():
    loss = RegressionLoss(reduction="mean", variance_weight=1.0)
    total, _ = loss(P[:1], P[:1])
    assert total.item() == pytest.approx(0.5 - 1e-3)


@pytest.mark.parametrize(
    "loss",
    [
        RegressionLoss(),
        RegressionLoss(beta=2.0, scale=1.0),
        RegressionLoss(reduction="mean", variance_weight=0.1, variance_margin=2.0),
    ],
)
def test_compiles_without_graph_breaks(loss):
    def call(predictions, targets):
        return loss(predictions, targets)

    compiled = torch.compile(call, fullgraph=True, backend="eager", dynamic=True)
    for rows in (5, 9):
        x, y = torch.randn(rows, 6, requires_grad=True), torch.randn(rows, 6)
        total, count = compiled(x, y)
        expected, expected_count = loss(x, y)
        assert count == expected_count
        torch.testing.assert_close(total, expected)
        (gradient,) = torch.autograd.grad(total, x)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, x)[0])
    torch.compile(loss, fullgraph=True, backend="eager")(x, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1.0}, "beta=-1"),
        ({"scale": 0.0}, "scale=0"),
        ({"scale": math.inf}, "scale=inf"),
        ({"reduction": "max"}, "reduction='max'"),
        ({"variance_weight": 0.1}, r"variance_weight=0\.1"),
        ({"variance_margin": -0.1}, "variance_margin=-0.1"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        RegressionLoss(**options)


def test_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(1, 3\)"):
        RegressionLoss()(P, T[:1])
    with pytest.raises(ValueError, match=r"n d.*\(1, 2, 3\)"):
        RegressionLoss()(P[None], T[None])
