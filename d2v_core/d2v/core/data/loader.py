"""Batches of one split, with an exact position and a list of broken samples.

All randomness of a sample is a function of (seed, epoch, id), so the number of workers affects only the speed. The
loader is independent of the type of the samples, of the rule of the plan and of the use of the batches.
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
    """A data set: samples by id, 0 to n-1. Ids must not change between runs. Each worker gets a copy.

    Optional methods: `name(id)`, the user's name of a sample, for an id from `Batch.ids`, and `identity()`, the
    `Identity` of the samples; without it only their number is known.
    """

    def __len__(self) -> int:
        """Number of samples."""

    def get(self, id: int, *, seed: int, epoch: int) -> S_co:
        """Return one sample, the same for the same arguments.

        Any exception marks the sample as broken; a `BrokenSampleError` or an OSError gives its name.
        """


class Loader(Prefetcher[Request], Generic[S]):
    """Loader of the batches that a plan makes of a data set; implements `Batches`.

    With `endless`, for training, epochs follow each other without end. A broken sample is replaced by the one that the
    plan gives, so batches keep their size on all ranks and stay within the plan's limits; if the plan gives none, the
    batch is one sample smaller. Without `endless`, the loader makes one pass and leaves out broken samples, so that no
    sample counts twice, and batches without any sample. The batches depend only on the files, not on the workers or on
    where a run was interrupted.

    `state_dict()` is `{"epoch": e, "batch": i}`. In an epoch that another number of processes began (`continued`), i
    counts from the change, and `"skip"` is the number of units that were taken before.

    Args:
        samples: the data set.
        collate: function from samples and their ids, Long `b`, to a `Batch`; must be picklable, as it runs in workers.
        plan: plan of the batches; for training it shuffles and drops the tail.
        endless: whether epochs follow each other without end, see above.
        num_workers: number of worker processes; 0 = read in this process.

    Raises:
        DataError: while iterating, if no sample can be read.
        ValueError: if the plan is for another number of samples, or is `uneven` with `endless`.

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
                "so training would hang; use drop_last=True"
            )
        self.samples = samples
        self.plan = plan
        self._identity: Identity | None = None
        super().__init__(
            _Fetch(samples, collate, plan, replace=endless),
            partial(_entries, plan, endless),
            beginning={"epoch": 0, "batch": 0},
            endless=endless,
            num_workers=num_workers,
        )

    def __len__(self) -> int:
        """Number of batches in the current epoch."""
        return self.plan.num_batches(self._position["epoch"], self._position.get("skip", 0))

    def name(self, id: int) -> str:
        """User's name of a sample, for its id in `Batch.ids`; in one line (`escaped`)."""
        named: Callable[[int], str] | None = getattr(self.samples, "name", None)
        return f"sample {id}" if named is None else escaped(named(id))

    def identity(self) -> Identity:
        """Identity of the samples, as given by the data set; computed once."""
        if self._identity is None:
            identity: Callable[[], Identity] | None = getattr(self.samples, "identity", None)
            self._identity = Identity(samples=self.plan.n) if identity is None else identity()
        return self._identity

    def restart(self, state: Mapping[str, Any]) -> None:
        """Move to the beginning of the epoch after that of `state`."""
        self.load_state_dict({"epoch": state["epoch"] + 1, "batch": 0})

    def continued(self, state: Mapping[str, Any], *, before: int) -> State:
        """Return the state that continues the epoch of a state on another number of processes.

        Nothing that was taken is taken again, and nothing is left out but the tail of the epoch.

        Args:
            state: saved by each of `before` processes.
            before: number of processes then.
        """
        taken = state.get("skip", 0) + state["batch"] * self.plan.units * before
        left = self.plan.num_batches(state["epoch"], taken)
        return (
            {"epoch": state["epoch"], "batch": 0, "skip": taken} if left else {"epoch": state["epoch"] + 1, "batch": 0}
        )

    def _beginning(self) -> State:
        return {"epoch": self._position["epoch"], "batch": 0}

    def _checked(self, state: Mapping[str, Any]) -> State:
        epoch, batch, skip = state["epoch"], state["batch"], state.get("skip", 0)
        if epoch < 0 or skip < 0 or not 0 <= batch <= self.plan.num_batches(epoch, skip):
            allowed = f"epoch 0 or above, batch 0 to {self.plan.num_batches(max(epoch, 0), max(skip, 0))}"
            raise ValueError(f"no such position: epoch {epoch}, batch {batch}; expected {allowed}")
        return {"epoch": epoch, "batch": batch, **({"skip": skip} if skip else {})}

    def _num_samples(self) -> int:
        return self.plan.n


def _entries(plan: Plan, endless: bool, position: State) -> Iterator[Entry[Request]]:
    epoch, first, skip = position["epoch"], position["batch"], position.get("skip", 0)
    while True:
        num_batches = plan.num_batches(epoch, skip)
        if endless and num_batches == 0:
            raise DataError(f"epoch {epoch} has no batch")
        for request in plan.requests(epoch, first, skip):
            after = {"epoch": epoch, "batch": request.index + 1, **({"skip": skip} if skip else {})}
            if endless and request.index + 1 == num_batches:
                after = {"epoch": epoch + 1, "batch": 0}
            yield Entry(request=request, after=after)
        if not endless:
            return
        epoch, first, skip = epoch + 1, 0, 0


class _Fetch(Dataset[Fetched], Generic[S]):
    """Reads the samples of a request."""

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

        def add(id: int) -> bool:
            nonlocal failed
            found = read_one(id, broken, self.samples.get, id, seed=self.plan.seed, epoch=request.epoch)
            failed = 0 if found else failed + 1
            samples.extend(found)
            ids.extend([id] * len(found))
            return bool(found)

        for wanted in request.ids:
            id: int | None = wanted
            attempts = count()
            while id is not None and not add(id) and self.replace and failed < TRIES:
                id = self.plan.replacement(wanted, epoch=request.epoch, attempt=next(attempts))
        if self.replace:
            # A single sample is within any limits, and without a batch the other ranks would wait for this one.
            for attempt in range(TRIES, 2 * TRIES):
                if samples or add(self._any_id(request, attempt)):
                    break
        batch = self.collate(samples, torch.tensor(ids)) if samples else None
        return Fetched(batch=batch, broken=broken, failed=failed)

    def _any_id(self, request: Request, attempt: int) -> int:
        number = drawn(
            Purpose.REPLACEMENT, seed=self.plan.seed, epoch=request.epoch, id=request.ids[0], attempt=attempt
        )
        return number % self.plan.n
