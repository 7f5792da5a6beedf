"""The device and the number of CPU threads of a job."""

import torch

from d2v.core.files import ConfigError


def pick_device(name: str) -> torch.device:
    """Return the device of a name; `auto` = cuda, mps or cpu, the first that is available.

    Raises:
        ConfigError: if torch does not know the device, or this machine does not have it.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        return torch.device(next((kind for kind, found in there.items() if found), "cpu"))
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device={name!r} cannot be used: {str(error).splitlines()[0]}; try device=auto") from error
    return device


def use_threads(threads: int | None) -> None:
    """Set the number of CPU threads of PyTorch for this process; None = leave it unchanged.

    >>> use_threads(None)
    """
    if threads is not None:
        torch.set_num_threads(threads)
