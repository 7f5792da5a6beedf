"""Memory that an update frees and the next one asks for again."""

import torch

_BLOCK = 31 << 20  # bytes, just below the largest block that glibc adapts to


def keep_heap() -> None:
    """Have the C library keep the memory that an update on the CPU frees, up to 62 MiB.

    glibc gives the free end of its heap back to the system, and gets it again a page at a time: hundreds of page faults
    in an update of a small model. How much it keeps is twice the largest block that was freed so far, so one is made
    and freed here, without touching its pages. Other C libraries ignore it.

    >>> keep_heap()
    """
    torch.empty(_BLOCK, dtype=torch.uint8, device="cpu")
