"""Initialisation of transformer weights (verified against the published code)."""

import math
from collections.abc import Iterable
from typing import Literal

from torch import nn

from d2v.core.validators import check, one_of

Scheme = Literal["normal", "xavier", "scaled"]


def initialise(module: nn.Module, scheme: Scheme) -> None:
    """Initialise every linear layer and embedding of a module; biases become 0, norms and convolutions are unchanged.

    Args:
        module: module to initialise in place.
        scheme: "normal" = N(0, 0.02), as published; "xavier" = Xavier-uniform, which learns faster at small widths;
            "scaled" = N(0, 0.02) truncated at one standard deviation, as in the 1.0 image models (see also
            `scale_branches`).

    Raises:
        ValueError: if the scheme is unknown.

    >>> linear = nn.Linear(4, 4)
    >>> initialise(linear, "normal")
    >>> linear.bias.abs().max().item()
    0.0
    """
    check(one_of(Scheme), scheme=scheme)
    for child in module.modules():
        if isinstance(child, nn.Linear):
            if scheme == "xavier":
                nn.init.xavier_uniform_(child.weight)
            elif scheme == "scaled":
                nn.init.trunc_normal_(child.weight, std=0.02, a=-0.02, b=0.02)
            else:
                nn.init.normal_(child.weight, std=0.02)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.Embedding):
            nn.init.normal_(child.weight, std=0.02)
            if child.padding_idx is not None:
                child.weight.data[child.padding_idx].zero_()


def scale_branches(last_linears: Iterable[Iterable[nn.Linear]]) -> None:
    """Divide the last linear layer of each branch of block i (from 0) by sqrt(2 (i + 1)), as the 1.0 image models do.

    Args:
        last_linears: last linear layers of the branches, for each block.
    """
    for i, linears in enumerate(last_linears):
        for linear in linears:
            linear.weight.data.div_(math.sqrt(2 * (i + 1)))
