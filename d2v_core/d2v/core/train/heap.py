"""What the C library does with memory that an update on the CPU frees."""

import ctypes
import sys

import torch

_BLOCK = 31 << 20  # bytes, just below the largest block that glibc adapts to
_LARGE = 1 << 20  # bytes
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_heap() -> None:
    """Have the C library keep the memory that an update frees, up to 62 MiB, unless `give_back` was called.

    glibc gives the free end of its heap back to the system, and gets it again a page at a time: hundreds of page faults
    in an update of a small model. How much it keeps is twice the largest block that was freed so far, so one is made
    and freed here, without touching its pages. Other C libraries ignore it.

    >>> keep_heap()
    """
    torch.empty(_BLOCK, dtype=torch.uint8, device="cpu")


def give_back() -> None:
    """Have the C library give blocks of 1 MiB and more back to the system as soon as they are freed.

    Otherwise, glibc keeps those up to 32 MiB for the next time. Between the gradients, which come back in another order
    than the activations leave, much of this never fits again. It holds for the whole process, from now on. Other C
    libraries ignore it.

    >>> give_back()
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE)  # the ratio that glibc keeps itself
