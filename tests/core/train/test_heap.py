"""Memory that an update frees stays with the process."""

import platform
import subprocess
import sys

import pytest

# A block that glibc maps on its own goes back to the system when it is freed; blocks of the heap are used again.
_PROGRAM = """
import torch
from d2v.core.train.heap import keep_heap
keep_heap()
block = torch.empty(30 << 20, dtype=torch.uint8)
with open("/proc/self/maps") as maps:
    (heap,) = (line.split()[0] for line in maps if line.rstrip().endswith("[heap]"))
first, last = (int(part, 16) for part in heap.split("-"))
print(first <= block.data_ptr() < last)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other allocators")
def test_large_blocks_are_those_of_the_heap() -> None:
    found = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert found.stdout == "True\n"
