"""Read, mask and copy the next batch while the device computes the current one."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from attrs import evolve, frozen

from d2v.core.model import Batch
from d2v.core.train.source import BatchSource


@frozen(kw_only=True, eq=False)
class _Next:
    """The next batch, as it was read and on the device, or the error in its place.

    `position` is that of the source before it was read, and `update` the one that its mask was drawn for.
    """

    position: dict[str, Any]
    update: int = 0
    read: Batch | None = None
    moved: Batch | None = None
    error: Exception | None = None


class Ahead:
    """Batches of a source on the device, one of them ahead of the update that uses it.

    Without `fetch`, `take` gives the same batches, but the device is idle while they are read. Call `fetch` when the
    work of the current batch has been given to the device, before the first wait for its results. The error of a batch
    is raised by the `take` that would return it.

    Args:
        data: source of the batches.
        device: device of the model; batches that are copied to a CUDA device are pinned first.
        prepare: function from a batch and the number of finished updates to the batch with all that a step can know
            before, such as its mask; None = batches are used as they were read.
        next_of: function that returns the next batch of an iterator.

    >>> from d2v.core.train import MemorySource
    >>> batches = [Batch(source=torch.full((1, 2), float(number))) for number in range(3)]
    >>> ahead = Ahead(MemorySource(batches, seed=None), torch.device("cpu"))
    >>> ahead.fetch(0)
    >>> ahead.take(0).source, ahead.state_dict()
    (tensor([[0., 0.]]), {'epoch': 0, 'batch': 1})
    """

    def __init__(
        self,
        data: BatchSource,
        device: torch.device,
        *,
        prepare: Callable[..., Batch] | None = None,
        next_of: Callable[[Iterator[Batch]], Batch] = next,
    ) -> None:
        self._data = data
        self._device = device
        self._prepare = prepare
        self._next_of = next_of
        self._batches = iter(data)
        self._next: _Next | None = None

    def fetch(self, update: int) -> None:
        """Read the next batch and start its copy to the device, if that has not been done.

        Args:
            update: number of finished updates when it will be taken.
        """
        if self._next is not None:
            return
        found = _Next(position=self._data.state_dict())
        try:
            found = evolve(found, read=self._next_of(self._batches))
            self._next = self._moved(found, update)
        except Exception as error:  # the current update can be finished first
            self._next = evolve(found, update=update, error=error)

    def take(self, update: int) -> Batch:
        """Return the next batch, on the device.

        Args:
            update: number of finished updates. If it is not the one that `fetch` expected, because an update overflowed
                in fp16 and is repeated, the mask is drawn again.
        """
        self.fetch(update)
        assert self._next is not None
        found, self._next = self._next, None
        if found.read is not None and found.update != update:
            found = self._moved(found, update)
        if found.error is not None:
            raise found.error
        assert found.moved is not None
        return found.moved

    def state_dict(self) -> dict[str, Any]:
        """Position of the batch that `take` returns next, for a checkpoint."""
        return self._data.state_dict() if self._next is None else self._next.position

    def close(self) -> None:
        """Give back a batch that was not taken, so that the source goes on with it, and end this pass over the source.

        The source reports what it could not read when a pass ends.
        """
        if self._next is not None:
            self._data.load_state_dict(self._next.position)
            self._next = None
        end: Callable[[], None] | None = getattr(self._batches, "close", None)  # of a generator
        if end is not None:
            end()

    def _moved(self, found: _Next, update: int) -> _Next:
        batch = found.read
        assert batch is not None
        if self._prepare is not None:
            batch = self._prepare(batch, update=update)
        if self._device.type == "cuda":
            batch = batch.pin_memory()
        return evolve(found, update=update, moved=batch.to(self._device, non_blocking=True), error=None)
