"""Images that ship with the package, so that the first run needs no download.

They are stored as arrays; `shipped/LICENSE-*` describes their origin.
"""

from importlib.resources import files

import numpy as np
import torch
from torch import Tensor

__all__ = ["DIGITS_CLASSES", "FASHION_MNIST_CLASSES", "digits", "fashion_mnist"]

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""Names of the classes of Fashion-MNIST, in the order of their numbers."""
DIGITS_CLASSES = tuple("0123456789")
"""Names of the classes of the digits, in the order of their numbers."""

_SPLITS = {"fashion_mnist": ("train", "val", "test"), "digits": ("train", "test")}


def fashion_mnist(split: str) -> tuple[Tensor, Tensor]:
    """A balanced subset of Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): ten classes of clothes.

    Args:
        split: `train` (10,000 images), `val` (2,000, to choose settings) or `test` (2,000, to report results). No image
            occurs twice. These are not the official splits.

    Returns:
        Images, uint8 `b 1 28 28`, and their classes, Long `b`, in a fixed shuffled order.

    Raises:
        ValueError: if there is no such split.

    >>> images, labels = fashion_mnist("test")
    >>> images.shape, images.dtype, labels.shape
    (torch.Size([2000, 1, 28, 28]), torch.uint8, torch.Size([2000]))
    """
    images, labels = _read("fashion_mnist", split)
    return images[:, None], labels


def digits(split: str) -> tuple[Tensor, Tensor]:
    """The 1,797 handwritten digits of scikit-learn's `load_digits` (Alpaydin and Kaynak 1998), 8x8 pixels.

    Args:
        split: `train` (1,438) or `test` (359, a fifth of each class); there is no official split.

    Returns:
        Images, uint8 `b 1 8 8` from 0 to 255 (the original's 17 levels, scaled), and their classes, Long `b`.

    Raises:
        ValueError: if there is no such split.

    >>> images, labels = digits("test")
    >>> images.shape, int(images.max()), labels.shape
    (torch.Size([359, 1, 8, 8]), 255, torch.Size([359]))
    """
    images, labels = _read("digits", split)
    return (images.float() * (255 / 16)).round().to(torch.uint8)[:, None], labels


def _read(name: str, split: str) -> tuple[Tensor, Tensor]:
    if split not in _SPLITS[name]:
        raise ValueError(f"{name} has no split {split!r}; it has {', '.join(_SPLITS[name])}")
    with files("d2v.vision").joinpath(f"shipped/{name.replace('_', '-')}.npz").open("rb") as file:
        # Never unpickle: a data file must not run code.
        arrays = np.load(file, allow_pickle=False)
        return torch.from_numpy(arrays[f"{split}_images"]), torch.from_numpy(arrays[f"{split}_labels"]).long()
