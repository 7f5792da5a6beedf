"""What a checkpoint knows of its data and its machine, and what is said where they are others now."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from d2v.core.data import Identity, identity_of
from d2v.core.train.source import BatchSource


def stored_identity(data: BatchSource) -> dict[str, Any] | None:
    """What a checkpoint keeps of the samples: plain values; None where they do not say who they are."""
    found = identity_of(data)
    return None if found is None else found.to_plain()


def changed_data(stored: Mapping[str, Any] | None, data: BatchSource) -> str | None:
    """How the samples at hand differ from those of a checkpoint, in words; None if they do not, or it is not known.

    Args:
        stored: of `stored_identity`.
        data: at hand.

    >>> class Ten:
    ...     def identity(self):
    ...         return Identity(samples=10)
    >>> changed_data({"samples": 12, "digest": ""}, Ten())
    'the data have changed since the checkpoint: 12 samples then, 10 samples now'
    """
    now = identity_of(data)
    if stored is None or now is None:
        return None
    then = Identity.read(stored)
    if then == now:
        return None
    if then.samples == now.samples:
        others = "others, or in another order"
        return f"the data have changed since the checkpoint: as many samples ({now.samples}), but {others}"
    return f"the data have changed since the checkpoint: {then.count} then, {now.count} now"


def begin_anew(data: BatchSource, place: Mapping[str, Any]) -> None:
    """Set the place at the beginning of the epoch after that of a place among other samples, if the data know how."""
    restart = getattr(data, "restart", None)
    if restart is not None:
        restart(place)


def machine_of(model: nn.Module) -> dict[str, Any]:
    """What rounding depends on, beside the settings of a run: device, threads, version of torch."""
    device = next(model.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, "threads": torch.get_num_threads(), "torch": str(torch.__version__)}


def changed_machine(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """One line where the results are no longer bit-identical to those of a run that was never stopped.

    >>> next(changed_machine({"device": "cpu", "threads": 1}, {"device": "cpu", "threads": 2}))
    'threads 1 -> 2: the run is no longer bit-identical to one that was not stopped'
    """
    found = [f"{name} {then[name]} -> {now[name]}" for name in now if name in then and then[name] != now[name]]
    if found:
        yield f"{', '.join(found)}: the run is no longer bit-identical to one that was not stopped"
