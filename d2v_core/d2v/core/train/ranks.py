"""Ranks of a training: the processes of `torch.distributed`, integers summed over them, and seeds.

`torchrun` describes the group of processes in environment variables; `connected` joins it.
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed as dist

_STARTED_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def world() -> tuple[int, int]:
    """Return the rank and the number of workers; (0, 1) without torch.distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def started_processes() -> int:
    """Return the number of processes that `torchrun` started for this program; 1 without it.

    >>> started_processes()
    1
    """
    return int(os.environ["WORLD_SIZE"]) if _by_torchrun() else 1


@contextmanager
def connected(*, timeout: float = 1800.0) -> Iterator[None]:
    """Join the processes that `torchrun` started, and leave them at the end; otherwise nothing happens.

    Each process uses the GPU of its local rank. Tensors on GPUs are exchanged by NCCL, those on CPUs by gloo. A process
    group that is initialised already is used as it is.

    Args:
        timeout: seconds that a process waits for the others before it ends with an error.

    >>> with connected():
    ...     world()
    (0, 1)
    """
    if not _by_torchrun() or not dist.is_available() or dist.is_initialized():
        yield
        return
    from torch.distributed.rendezvous import rendezvous  # missing where torch is built without it

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    wait = timedelta(seconds=timeout)
    store, rank, workers = next(rendezvous("env://", timeout=wait))
    # torchrun may keep its store when it restarts the processes; without a prefix they would find the addresses of
    # those that have ended.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    own = dist.PrefixStore(f"attempt-{attempt}", store)  # type: ignore[attr-defined]  # torch documents it
    dist.init_process_group(backend, store=own, rank=rank, world_size=workers, timeout=wait)
    try:
        yield
    finally:
        dist.destroy_process_group()


def sum_over_ranks(values: list[int], device: torch.device) -> list[int]:
    """Return integers summed over the ranks: on the CPU if they can exchange there, so that no GPU is waited for.

    Args:
        values: as many on all ranks.
        device: device of the model.
    """
    if world()[1] == 1:
        return values
    total = torch.tensor(values, device="cpu" if "cpu:" in dist.get_backend_config() else device)
    dist.all_reduce(total)
    summed: list[int] = total.tolist()
    return summed


def dropout_seed(seed: int, update: int, rank: int, micro: int) -> int:
    """Return the seed of the generators for one forward pass, so that generator states need not be saved.

    >>> dropout_seed(0, 1, 0, 0) == dropout_seed(0, 1, 0, 0) != dropout_seed(0, 0, 1, 0)
    True
    """
    return _hashed("<4q", seed, update, rank, micro)


def layer_drop_seed(seed: int, update: int, micro: int) -> int:
    """Return the seed of the layers to skip in one forward pass: the same on all ranks, which must skip the same.

    >>> layer_drop_seed(0, 1, 0) == layer_drop_seed(0, 1, 0) != layer_drop_seed(0, 0, 1)
    True
    """
    return _hashed("<3q", seed, update, micro)


def _by_torchrun() -> bool:
    return all(name in os.environ for name in _STARTED_BY_TORCHRUN)


def _hashed(layout: str, *numbers: int) -> int:
    digest = hashlib.blake2b(struct.pack(layout, *numbers), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1  # torch accepts 63 bits on every device
