"""Random mixture of the batches of several sources, for recipes with several modalities."""

import dataclasses
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from d2v.core.data.batches import Batches
from d2v.core.data.draws import Purpose, drawn
from d2v.core.data.identity import Identity, identity_of
from d2v.core.model import Batch
from d2v.core.validators import check, positive


class Mixture:
    """Endless `Batches` whose n-th batch comes from a source drawn from (seed, n), the same on all ranks.

    A batch has samples of one source, and its `modality` is the source's name. Ids are made unique over the sources:
    own id * number of sources + index of the source in the order of the names.

    `state_dict()` is `{"batch": n, "sources": state by name}`.

    Args:
        sources: endless batches by modality.
        weights: relative frequency of each source's batches, by the same names.
        seed: seed of the run.

    Raises:
        ValueError: if there is no source, the names differ, or a weight is not above 0; while iterating, if a source
            ends.

    >>> from d2v.core.train import MemorySource
    >>> import torch
    >>> ones, twos = (MemorySource([Batch(source=torch.full((1, 1), number))]) for number in (1.0, 2.0))
    >>> mixture = Mixture({"audio": ones, "text": twos}, {"audio": 3.0, "text": 1.0})
    >>> [batch.modality for batch, _ in zip(mixture, range(5))]
    ['audio', 'text', 'audio', 'audio', 'audio']
    """

    def __init__(self, sources: Mapping[str, Batches], weights: Mapping[str, float], *, seed: int = 0) -> None:
        if not sources or sources.keys() != weights.keys():
            raise ValueError(f"weights are for {sorted(weights)}, but the sources are {sorted(sources)}")
        for name, weight in weights.items():
            check(positive, **{f"weights.{name}": weight})
        self.names = tuple(sorted(sources))
        self.sources = dict(sources)
        self.seed = seed
        self._up_to = list(accumulate(weights[name] for name in self.names))
        self._batch = 0
        self._is_set = False

    def __iter__(self) -> Iterator[Batch]:
        self._is_set = False
        number, begun = self._batch, dict[str, Iterator[Batch]]()
        while True:
            index = self._drawn(number)
            name = self.names[index]
            if name not in begun:
                begun[name] = iter(self.sources[name])
            batch = next(begun[name], None)
            if batch is None:
                raise ValueError(f"source {name!r} of the mixture has ended; build it for training, as endless batches")
            number += 1
            if not self._is_set:
                self._batch = number
            ids = None if batch.ids is None else batch.ids * len(self.names) + index
            yield dataclasses.replace(batch, modality=name, ids=ids)

    def state_dict(self) -> dict[str, Any]:
        """Number of batches so far, and the position of each source."""
        return {"batch": self._batch, "sources": {name: self.sources[name].state_dict() for name in self.names}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the position; raises `ValueError` if it is one of other sources."""
        if sorted(state["sources"]) != list(self.names):
            raise ValueError(
                f"the state is of sources {sorted(state['sources'])}, but the mixture has {list(self.names)}"
            )
        for name in self.names:
            self.sources[name].load_state_dict(state["sources"][name])
        self._batch, self._is_set = state["batch"], True

    def continued(self, state: Mapping[str, Any], *, before: int) -> dict[str, Any]:
        """Return the state that continues the epochs of all sources on another number of processes."""
        own = state["sources"]
        sources = {name: self.sources[name].continued(own[name], before=before) for name in self.names}
        return {**state, "sources": sources}

    def restart(self, state: Mapping[str, Any]) -> None:
        """Move all sources to the beginning of the epoch after that of `state`."""
        for name in self.names:
            if name in state["sources"]:
                self.sources[name].restart(state["sources"][name])
        self._batch, self._is_set = state["batch"], True

    def identity(self) -> Identity | None:
        """Identity of the samples of all sources; None if that of a source is unknown."""
        found = {name: identity_of(source) for name, source in self.sources.items()}
        known = {name: one for name, one in found.items() if one is not None}
        return Identity.joined(known) if len(known) == len(found) else None

    @property
    def broken(self) -> dict[str, str]:
        """Samples of all sources that could not be read: "source: name" to reason."""
        return {
            f"{source}: {name}": reason for source in self.names for name, reason in self.sources[source].broken.items()
        }

    def name(self, id: int) -> str:
        """User's name of a sample, for its id in `Batch.ids`."""
        own, index = divmod(id, len(self.names))
        return self.sources[self.names[index]].name(own)

    def report(self) -> str:
        """Numbers and lists of the samples that could not be read, by source; empty if there are none."""
        reports = {name: self.sources[name].report() for name in self.names}
        return "\n".join(f"{name}: {report}" for name, report in reports.items() if report)

    def _drawn(self, number: int) -> int:
        uniform = drawn(Purpose.MIXTURE, seed=self.seed, epoch=0, id=number) * 2.0**-53
        return min(bisect_right(self._up_to, uniform * self._up_to[-1]), len(self.names) - 1)
