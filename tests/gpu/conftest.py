"""What the GPU tests share: products in full fp32, so that a difference from the CPU is rounding alone."""

import os
from collections.abc import Iterator

import pytest
import torch

# Read when cuBLAS begins: deterministic kernels need workspaces of a fixed size.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture
def gpu() -> torch.device:
    return torch.device("cuda")


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = allowed


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Sums in a fixed order: gathers of one sample's views add into the same rows, in any order otherwise."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
