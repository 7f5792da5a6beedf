"""The script that creates the built-in digits."""

import gzip
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scripts import loaded


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return loaded("tools/make_digits.py")


def test_a_fifth_of_each_class_whatever_the_order(script: ModuleType) -> None:
    rng = np.random.default_rng(0)
    table = np.concatenate([rng.integers(0, 17, (100, 64)), np.arange(100)[:, None] % 10], 1)
    packed = []
    for rows in (table, table[::-1]):
        lines = "\n".join(",".join(map(str, row)) for row in rows.tolist())
        arrays = script.split(*script.read(gzip.compress(lines.encode())))
        packed.append(script.pack(arrays))
    assert packed[0] == packed[1]
    assert np.bincount(arrays["test_labels"]).tolist() == [2] * 10
    assert np.bincount(arrays["train_labels"]).tolist() == [8] * 10


def test_another_wheel_is_refused(script: ModuleType, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as wheel:
        wheel.writestr(script.MEMBER, b"something else")
    with pytest.raises(SystemExit, match="scikit-learn"):
        script.main([str(tmp_path / "other.whl"), "--out", str(tmp_path / "out.npz")])
    assert not (tmp_path / "out.npz").exists()
