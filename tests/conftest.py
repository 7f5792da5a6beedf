"""What all tests share: the helpers' folder on the path, one thread, and a fixed start of PyTorch's generator."""

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# pytest's importlib mode adds no folder: `building` is for all tests, the parity check's files name each other.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "parity")]

# Small tensors: more threads cost more than they give, and results do not depend on the machine. Several processes of
# several threads each would slow each other down; those that tests start have one as well.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The plain forms of computations: results do not depend on what is faster here.
os.environ["D2V_KERNELS"] = "plain"

# A change is judged by the same examples as the state before it; `nox -s search` looks for new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("search", print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")


@pytest.fixture
def built_in_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data but those of the built-in modalities: other tests in this process may have added kinds."""
    from d2v.core.data import DataConfig
    from d2v.core.files.kinds import role_of

    role = role_of(DataConfig)
    assert role is not None
    for kind in list(role.own):
        monkeypatch.delitem(role.own, kind)
