"""Changes of data and machine between a checkpoint and a resumed run."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from d2v.core.data import DataError, Identity, identity_of
from d2v.core.train.ranks import world
from d2v.core.train.source import BatchSource


def stored_identity(data: BatchSource) -> dict[str, Any] | None:
    """Return the identity of the samples as plain values, for a checkpoint; None if unknown."""
    found = identity_of(data)
    return None if found is None else found.to_plain()


def changed_data(stored: Mapping[str, Any] | None, data: BatchSource) -> str | None:
    """Describe how the samples differ from those of a checkpoint; None if they do not differ, or it is unknown.

    Args:
        stored: output of `stored_identity`, from the checkpoint.
        data: current data.

    >>> class Ten:
    ...     def identity(self):
    ...         return Identity(samples=10)
    >>> changed_data({"samples": 12, "digest": ""}, Ten())
    'the data has changed since the checkpoint: 12 samples then, 10 samples now'
    """
    now = identity_of(data)
    if stored is None or now is None:
        return None
    then = Identity.read(stored)
    if then == now:
        return None
    if then.samples == now.samples:
        difference = "different samples, or in another order"
        return f"the data has changed since the checkpoint: still {now.samples} samples, but {difference}"
    return f"the data has changed since the checkpoint: {then.count} then, {now.count} now"


def continued(data: BatchSource, position: Mapping[str, Any], *, before: int) -> Mapping[str, Any]:
    """Return the position on the processes of now for one that `before` processes saved.

    Raises:
        DataError: if the data cannot be continued by another number of processes.
    """
    if before == world()[1]:
        return position
    method = getattr(data, "continued", None)
    if method is None:
        raise DataError(f"this data was read by {before} process(es) and cannot be continued by {world()[1]}")
    found: Mapping[str, Any] = method(position, before=before)
    return found


def restart(data: BatchSource, position: Mapping[str, Any]) -> None:
    """Move to the beginning of the epoch after that of a position among other samples, if the data supports it."""
    method = getattr(data, "restart", None)
    if method is not None:
        method(position)


def machine_of(model: nn.Module) -> dict[str, Any]:
    """Return what affects rounding: device, number of threads and of processes, version of torch."""
    device = next(model.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads, workers = torch.get_num_threads(), world()[1]
    return {"device": name, "threads": threads, "processes": workers, "torch": str(torch.__version__)}


def changed_machine(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line if the results are no longer bit-identical to those of an uninterrupted run.

    >>> next(changed_machine({"device": "cpu", "threads": 1}, {"device": "cpu", "threads": 2}))
    'threads 1 -> 2: the run is no longer bit-identical to an uninterrupted one'
    """
    found = [f"{name} {then[name]} -> {now[name]}" for name in now if name in then and then[name] != now[name]]
    if found:
        yield f"{', '.join(found)}: the run is no longer bit-identical to an uninterrupted one"
