"""The minimum of penalised multinomial logistic regression, by Newton's method.

This module works on tensors and is independent of labels and the choice of the penalty. Classes are the rows of
weights, logits and probabilities, samples the columns: softmax and products are several times faster in this layout.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_CG_STEPS = 250  # maximum steps of conjugate gradients for one Newton step
_FORCING = 0.3  # maximum fraction of the residual that conjugate gradients leave
_NULL = 1e-12  # added to each eigenvalue, relative to their mean, so that linearly dependent features have a factor


class Logistic:
    """Minimise mean cross-entropy of x W + b, plus strength * |W|^2, for one or several strengths.

    Newton's method in float64. Conjugate gradients compute its steps in float32, since a step need not be exact for the
    minimum to be exact. They run without a preconditioner until that has cost as much as factorising the Hessian's mean
    over the classes, then with this factor, which is renewed after the same cost: a strong penalty needs no factor, a
    weak one several. With fewer samples than features, the samples' coordinates in their span replace the features.

    Args:
        x: standardised features, float64 `n d`.
        y: Long `n`, class indices from 0.
        num_classes: k, at least 2.

    >>> x, y = torch.tensor([[-1.0], [-0.5], [0.5], [1.0]]).double(), torch.tensor([0, 1, 0, 1])
    >>> weight, bias = Logistic(x, y, 2).minimum(strength=0.1)
    >>> weight.shape, bool(weight[0, 1] > 0)
    (torch.Size([1, 2]), True)
    """

    def __init__(self, x: Tensor, y: Tensor, num_classes: int) -> None:
        n, d = x.shape
        self._span = None
        if n < d:
            gram = x @ x.T
            gram.diagonal().add_(_NULL * gram.diagonal().mean() + 1e-300)
            self._span = x
            x = torch.linalg.cholesky(gram)
        self._x = F.pad(x, (0, 1), value=1.0)  # the bias is the weight of a one
        self._low = self._x.float()
        self._y = y
        self._truth = F.one_hot(y, num_classes).T.to(x.dtype).contiguous()
        self._curvature: Tensor | None = None
        self._spent = 0
        # Cost of a factor in steps of conjugate gradients, whose thin matrix products are slower.
        self._price = max(self._x.shape[1] // (4 * num_classes), 8)

    def minimum(
        self,
        *,
        strength: float,
        start: tuple[Tensor, Tensor] | None = None,
        tolerance: float = 1e-8,
        max_iter: int = 100,
    ) -> tuple[Tensor, Tensor]:
        """W `d k` and b `k` at the minimum.

        Args:
            strength: of the penalty, at least 0.
            start: W and b to start from; None = zero.
            tolerance: maximum relative distance of the objective from its minimum before the last step; after this
                step the distance is much smaller.
            max_iter: maximum number of Newton steps.
        """
        theta = self._x.new_zeros(self._truth.shape[0], self._x.shape[1]) if start is None else self._inside(*start)
        penalty = torch.full_like(theta[0], 2 * strength)
        penalty[-1] = 0
        factor = self._factor(penalty)
        loss, p = self._loss(theta, penalty)
        for _ in range(max_iter):
            gradient = (p - self._truth) @ self._x / p.shape[1] + penalty * theta
            if self._spent > self._price:
                self._curvature, self._spent = self._mean_curvature(p), 0
                factor = self._factor(penalty)
            step = self._newton_step(gradient, p, penalty, factor, loss)
            slope = float((gradient * step).sum())
            theta, loss, p, moved = self._along(theta, step, slope, penalty, loss, p)
            if not moved or -slope / 2 <= tolerance * loss:
                break
        return self._outside(theta)

    def _loss(self, theta: Tensor, penalty: Tensor) -> tuple[float, Tensor]:
        """The objective, and probabilities `k n`."""
        logits = theta @ self._x.T
        total = logits.logsumexp(0)
        right = logits.gather(0, self._y[None])[0]
        loss = (total - right).mean() + (penalty * theta.square()).sum() / 2
        return float(loss), logits.sub_(total).exp_()

    def _along(
        self, theta: Tensor, step: Tensor, slope: float, penalty: Tensor, loss: float, p: Tensor
    ) -> tuple[Tensor, float, Tensor, bool]:
        """Line search: halve the step until the objective is lower."""
        size = 1.0
        while size > 1e-8:
            there = theta + size * step
            found, probabilities = self._loss(there, penalty)
            if found <= loss + 1e-4 * size * slope:
                return there, found, probabilities, True
            size /= 2
        return theta, loss, p, False  # only rounding errors remain

    def _newton_step(self, gradient: Tensor, p: Tensor, penalty: Tensor, factor: Tensor | None, loss: float) -> Tensor:
        """About H^-1 of the negative gradient, by preconditioned conjugate gradients."""
        x, p, penalty = self._low, p.float(), penalty.float()
        scale = float(gradient.abs().max()) or 1.0
        residual = (gradient / -scale).float()
        step = torch.zeros_like(residual)
        z = residual if factor is None else (residual @ factor.T) @ factor
        direction = z.clone()
        left = first = float(torch.dot(residual.flatten(), z.flatten()))
        # The expected decrease measures the distance from the minimum; close to it, exact steps pay off.
        enough = min(_FORCING, math.sqrt(first * scale**2 / max(loss, 1e-300))) ** 2 * first
        for _ in range(_CG_STEPS):
            if left <= enough:
                break
            self._spent += 1
            moved = p * (direction @ x.T)
            moved -= p * moved.sum(0)
            curved = torch.addcmul((moved @ x).div_(x.shape[0]), penalty, direction)
            size = left / float(torch.dot(direction.flatten(), curved.flatten()))
            step.add_(direction, alpha=size)
            residual.add_(curved, alpha=-size)
            z = residual if factor is None else (residual @ factor.T) @ factor
            before, left = left, float(torch.dot(residual.flatten(), z.flatten()))
            direction.mul_(left / before).add_(z)
        return step.to(gradient.dtype) * scale

    def _mean_curvature(self, p: Tensor) -> Tensor:
        """The Hessian of the cross-entropy for one class: the mean over all directions in which classes differ."""
        k, n = p.shape
        weight = (1 - p.square().sum(0)).clamp_(min=0) / ((k - 1) * n)
        x = self._x * weight.sqrt()[:, None]
        return x.T @ x

    def _factor(self, penalty: Tensor) -> Tensor | None:
        """The inverse of the mean Hessian's Cholesky factor, float32."""
        if self._curvature is None:
            return None
        whole = self._curvature.clone()
        diagonal = whole.diagonal()
        diagonal.add_(penalty + 1e-10 * diagonal.mean() + 1e-300)
        lower = torch.linalg.cholesky(whole)
        one = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
        inverse: Tensor = torch.linalg.solve_triangular(lower, one, upper=False)
        return inverse.float()

    def _inside(self, weight: Tensor, bias: Tensor) -> Tensor:
        weight, bias = weight.to(self._x), bias.to(self._x)
        if self._span is not None:
            weight = torch.linalg.solve_triangular(self._x[:, :-1], self._span @ weight, upper=False)
        return torch.cat([weight.T, bias[:, None]], 1)

    def _outside(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        weight = theta[:, :-1].T
        if self._span is not None:
            weight = self._span.T @ torch.linalg.solve_triangular(self._x[:, :-1].T, weight, upper=True)
        return weight.contiguous(), theta[:, -1].clone()
