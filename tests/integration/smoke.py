"""What must work right after `pip install d2v`, with no extra: run by `nox -s build` on the wheel and on the sdist."""

from importlib.metadata import files
from pathlib import Path

import torch

import d2v.core
from d2v.core.masks import Draw
from d2v.core.modality import modalities
from d2v.core.registry import MissingExtraError
from d2v.vision.builtin import fashion_mnist


def main() -> None:
    """Look for the four packages, the plug-ins and the shipped data, and run a small computation."""
    held = {str(path) for path in files("d2v") or []}
    for package in ("core", "vision", "audio", "text"):
        assert f"d2v/{package}/py.typed" in held, f"{package} is not in the distribution, or not typed"
    assert "d2v/__init__.py" not in held
    assert "site-packages" in Path(d2v.core.__file__).parts

    assert not modalities.broken()
    for name in ("vision", "audio", "text"):
        try:
            modalities.load(name).require_extra()
        except MissingExtraError as error:
            print(error)

    images, labels = fashion_mnist("test")
    assert len(images) == len(labels) == 2000
    bits = Draw(seed=0, update=0, ids=torch.arange(2)).bits(2, 49, stream=0)
    assert bits.shape == (4, 49)
    print(f"d2v {d2v.core.__version__}: fine")


if __name__ == "__main__":
    main()
