"""Batches of one split, with an exact place and a list of what was broken.

All that is random about a sample is a function of (seed, epoch, id), so the number of workers changes nothing but the
speed. The loader knows neither what a sample is, nor how a plan comes to its batches, nor what becomes of them.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from d2v.core.data.broken import DataError
from d2v.core.data.draws import Purpose, drawn
from d2v.core.data.identity import Identity
from d2v.core.data.names import escaped
from d2v.core.data.plan import Plan, Request
from d2v.core.data.prefetch import TRIES, Entry, Fetched, Prefetcher, State, read_one
from d2v.core.model import Batch

S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)


class Samples(Protocol[S_co]):
    """A data set: samples by their ids 0 to n-1, which must not change between runs; workers get a copy of it.

    It may also have a method `name(id)`, what the user knows a sample by, with the id that stands in `Batch.ids`, and
    `identity()`, which samples these are, as an `Identity`; without one their number is all that is known.
    """

    def __len__(self) -> int:
        """N."""

    def get(self, id: int, *, seed: int, epoch: int) -> S_co:
        """One sample, the same for the same arguments.

        Any exception counts the sample as broken; a `BrokenSampleError` or an OSError says its name.
        """


class Loader(Prefetcher[Request], Generic[S]):
    """Yields the batches that a plan makes of a data set: `Batches`.

    For training (`endless`) epoch follows epoch without end. A broken sample is replaced by one that the plan names, so
    batches keep their size on all ranks and never leave the plan's limits; where the plan names none, its place stays
    empty. Otherwise one pass is made and broken samples are left out, so that no sample counts twice; a batch without
    any is left out too. All this depends on the files alone, not on workers or on where a run was interrupted.

    `state_dict()` is `{"epoch": e, "batch": i}`.

    Args:
        samples: the data set.
        collate: samples and their ids, Long `b`, to a `Batch`; a function that can be pickled, as it runs in workers.
        plan: which samples make which batch; it shuffles and drops what is left over, for training, or does not.
        endless: for training, see above.
        num_workers: reading processes beside this one; 0 = read here.

    Raises:
        DataError: while iterating, if none can be read.
        ValueError: if the plan is for another number of samples, or for training gives some ranks more batches.

    >>> class Numbers:
    ...     def __len__(self):
    ...         return 5
    ...     def get(self, id, *, seed, epoch):
    ...         return torch.tensor([10.0 * id])
    >>> def collate(samples, ids):
    ...     return Batch(source=torch.stack(samples), ids=ids)
    >>> from d2v.core.data import FixedPlan
    >>> plan = FixedPlan(n=5, batch_size=2, shuffle=False, drop_last=False)
    >>> [batch.source.flatten().tolist() for batch in Loader(Numbers(), collate, plan, endless=False)]
    [[0.0, 10.0], [20.0, 30.0], [40.0]]
    """

    def __init__(
        self,
        samples: Samples[S],
        collate: Callable[[list[S], Tensor], Batch],
        plan: Plan,
        *,
        endless: bool = True,
        num_workers: int = 0,
    ) -> None:
        if plan.n != len(samples):
            raise ValueError(f"the plan is for {plan.n} samples, but the data set has {len(samples)}")
        if endless and plan.uneven:
            raise ValueError(
                f"the plan gives some processes a batch of the {plan.n} samples more than others, "
                "and training would wait for ever; use drop_last=True"
            )
        self.samples = samples
        self.plan = plan
        self._identity: Identity | None = None
        super().__init__(
            _Fetch(samples, collate, plan, replace=endless),
            partial(_dealt, plan, endless),
            beginning={"epoch": 0, "batch": 0},
            endless=endless,
            num_workers=num_workers,
        )

    def __len__(self) -> int:
        """Batches in the present epoch."""
        return self.plan.num_batches(self._place["epoch"])

    def name(self, id: int) -> str:
        """What the user knows a sample by, for its id in `Batch.ids`; in one line (`escaped`)."""
        named: Callable[[int], str] | None = getattr(self.samples, "name", None)
        return f"sample {id}" if named is None else escaped(named(id))

    def identity(self) -> Identity:
        """Which samples these are, as the data set says it; computed once."""
        if self._identity is None:
            told: Callable[[], Identity] | None = getattr(self.samples, "identity", None)
            self._identity = Identity(samples=self.plan.n) if told is None else told()
        return self._identity

    def restart(self, state: Mapping[str, Any]) -> None:
        """Set the place where the epoch after that of a place begins."""
        self.load_state_dict({"epoch": state["epoch"] + 1, "batch": 0})

    def _beginning(self) -> State:
        return {"epoch": self._place["epoch"], "batch": 0}

    def _checked(self, state: Mapping[str, Any]) -> State:
        epoch, batch = state["epoch"], state["batch"]
        if epoch < 0 or not 0 <= batch <= self.plan.num_batches(epoch):
            allowed = f"epoch 0 or above, batch 0 to {self.plan.num_batches(max(epoch, 0))}"
            raise ValueError(f"no such place: epoch {epoch}, batch {batch}; there are {allowed}")
        return {"epoch": epoch, "batch": batch}

    def _num_samples(self) -> int:
        return self.plan.n


def _dealt(plan: Plan, endless: bool, place: State) -> Iterator[Entry[Request]]:
    epoch, first = place["epoch"], place["batch"]
    while True:
        num_batches = plan.num_batches(epoch)
        if endless and num_batches == 0:
            raise DataError(f"epoch {epoch} has no batch")
        for request in plan.requests(epoch, first):
            is_last = endless and request.index + 1 == num_batches
            after = {"epoch": epoch + 1, "batch": 0} if is_last else {"epoch": epoch, "batch": request.index + 1}
            yield Entry(request=request, after=after)
        if not endless:
            return
        epoch, first = epoch + 1, 0


class _Fetch(Dataset[Fetched], Generic[S]):
    """Reads what a request asks for."""

    def __init__(
        self, samples: Samples[S], collate: Callable[[list[S], Tensor], Batch], plan: Plan, *, replace: bool
    ) -> None:
        self.samples = samples
        self.collate = collate
        self.plan = plan
        self.replace = replace

    def __getitem__(self, request: Request) -> Fetched:
        broken: dict[str, str] = {}
        samples: list[S] = []
        ids: list[int] = []
        failed = 0  # in a row

        def tried(id: int) -> bool:
            nonlocal failed
            found = read_one(id, broken, self.samples.get, id, seed=self.plan.seed, epoch=request.epoch)
            failed = 0 if found else failed + 1
            samples.extend(found)
            ids.extend([id] * len(found))
            return bool(found)

        for wanted in request.ids:
            id: int | None = wanted
            attempts = count()
            while id is not None and not tried(id) and self.replace and failed < TRIES:
                id = self.plan.replacement(wanted, epoch=request.epoch, attempt=next(attempts))
        if self.replace:
            # Alone, any sample is within any limits; and without a batch the other ranks would wait for this one.
            for attempt in range(TRIES, 2 * TRIES):
                if samples or tried(self._anywhere(request, attempt)):
                    break
        batch = self.collate(samples, torch.tensor(ids)) if samples else None
        return Fetched(batch=batch, broken=broken, failed=failed)

    def _anywhere(self, request: Request, attempt: int) -> int:
        number = drawn(
            Purpose.REPLACEMENT, seed=self.plan.seed, epoch=request.epoch, id=request.ids[0], attempt=attempt
        )
        return number % self.plan.n
