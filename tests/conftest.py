"""What all tests share: the helpers' folder on the path, one thread, and a fixed start of PyTorch's generator."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode adds no folder by itself


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    # Small tensors: more threads cost more than they give, and results do not depend on the machine.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
