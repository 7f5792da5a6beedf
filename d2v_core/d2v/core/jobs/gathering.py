"""Features that the processes of torchrun computed together, each of its share of the samples."""

from collections.abc import Iterator

import torch
from attrs import evolve
from torch import distributed as dist

from d2v.core.probes import Features
from d2v.core.probes.features import joined
from d2v.core.train.ranks import sum_over_ranks, world


def gathered(own: Iterator[Features]) -> Iterator[Features]:
    """Yield the features of a batch of all ranks on the first rank, in the order of the ids; nothing on the others.

    Args:
        own: features of the batches of this rank, of which some ranks may have one less.
    """
    rank, workers = world()
    if workers == 1:
        yield from own
        return
    while True:
        part = next(own, None)
        (busy,) = sum_over_ranks([int(part is not None)], torch.device("cpu"))
        if not busy:
            return
        pieces: list[Features | None] | None = [None] * workers if rank == 0 else None
        dist.gather_object(part, pieces)
        if pieces is not None:
            yield in_order(joined([piece for piece in pieces if piece is not None]))


def whole(own: Features) -> Features:
    """Return the features of the samples of all ranks, on every rank."""
    workers = world()[1]
    if workers == 1:
        return own
    pieces: list[Features | None] = [None] * workers
    dist.all_gather_object(pieces, own)
    return in_order(joined([piece for piece in pieces if piece is not None]))


def in_order(features: Features) -> Features:
    """Sort samples by their ids.

    >>> mixed = Features(values={"all": {"mean": torch.tensor([[2.0], [1.0]])}}, ids=torch.tensor([7, 3]))
    >>> in_order(mixed).values["all"]["mean"].tolist()
    [[1.0], [2.0]]
    """
    order = features.ids.argsort()
    return evolve(
        features,
        values={
            name: {pooling: x[order] for pooling, x in poolings.items()} for name, poolings in features.values.items()
        },
        ids=features.ids[order],
        labels=None if features.labels is None else features.labels[order],
        padding=None if features.padding is None else features.padding[order],
    )
