"""Memory that an update frees stays with the process, or goes back to the system."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other allocators")

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


# Every other block is freed, as activations are between the gradients.
_FREEING = """
import sys
import torch
from d2v.core.nn import TransformerEncoder
from d2v.core.train.heap import keep_heap
from d2v.core.train.preparing import checkpoint_activations
if sys.argv[1] == "checkpointed":
    checkpoint_activations(TransformerEncoder.stack(8, depth=1, num_heads=2))
keep_heap()

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024

blocks = [torch.ones(2 << 20, dtype=torch.uint8) for _ in range(100)]
before = resident()
del blocks[::2]
print(before - resident())
"""


def test_large_blocks_are_those_of_the_heap() -> None:
    assert _printed(_PROGRAM) == "True\n"


@pytest.mark.parametrize(("switch", "freed"), [("none", 0), ("checkpointed", 100)])
def test_checkpointing_gives_large_blocks_back(switch: str, freed: int) -> None:
    assert float(_printed(_FREEING, switch)) == pytest.approx(freed, abs=10)  # MiB


def _printed(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
