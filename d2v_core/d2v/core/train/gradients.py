"""Gradients as sum and count: reduction over ranks and scaling, once per update.

The gradient of a frozen parameter or of a dropped layer is None. It stays None unless another rank has a gradient.
"""

import hashlib
import struct
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch import distributed as dist


def world() -> tuple[int, int]:
    """Return the rank and the number of workers; (0, 1) without torch.distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def sum_over_ranks(values: list[int], device: torch.device) -> list[int]:
    """Return integers summed over the ranks."""
    if world()[1] == 1:
        return values
    total = torch.tensor(values, device=device)
    dist.all_reduce(total)
    summed: list[int] = total.tolist()
    return summed


def scale_gradients(parameters: Iterable[nn.Parameter], factor: float) -> list[Tensor]:
    """Sum the gradients over the ranks and multiply them by a factor, in place.

    Args:
        parameters: parameters, the same on all ranks and in the same order.
        factor: 1 / count of the whole update.

    Returns:
        The gradients that are not None.

    >>> weight = nn.Parameter(torch.ones(2))
    >>> (3 * weight).sum().backward()
    >>> scale_gradients([weight], 0.5)
    [tensor([1.5000, 1.5000])]
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    if world()[1] > 1:
        _sum_gradients(trainable)
    found = [parameter.grad for parameter in trainable if parameter.grad is not None]
    if found:
        torch._foreach_mul_(found, factor)
    return found


def dropout_seed(seed: int, update: int, rank: int, micro: int) -> int:
    """Return the seed of the generators for one forward pass, so that generator states need not be saved.

    >>> dropout_seed(0, 1, 0, 0) == dropout_seed(0, 1, 0, 0) != dropout_seed(0, 0, 1, 0)
    True
    """
    digest = hashlib.blake2b(struct.pack("<4q", seed, update, rank, micro), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1  # torch accepts 63 bits on every device


def _sum_gradients(parameters: list[nn.Parameter]) -> None:
    if not parameters:
        return
    has_gradient = torch.tensor(
        [parameter.grad is not None for parameter in parameters], device=parameters[0].device
    ).int()
    dist.all_reduce(has_gradient)
    for parameter, anywhere in zip(parameters, has_gradient.tolist(), strict=True):
        if anywhere:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
