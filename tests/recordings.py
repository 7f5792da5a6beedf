"""Recordings for tests: noise in files, and the five real sentences."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from d2v.audio import AudioDataConfig

LIBRIVOX = Path(__file__).parent / "audio" / "data" / "librivox"
LIBRI = Path(__file__).parent / "parity" / "data" / "rules" / "libri"


def noise_wave(length: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(0, 0.1, length).astype(np.float32)


def save(path: Path, length: int = 800, *, rate: int = 16000, channels: int = 1, seed: int = 0, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = noise_wave(length * channels, seed).reshape(length, channels)
    soundfile.write(path, samples, rate, **options)
    return path


def manifest(path: Path, root: Path, *names: str, lengths: list[int] | None = None) -> Path:
    """A manifest of files below a root, with the lengths of their headers unless others are given."""
    lengths = [soundfile.info(root / name).frames for name in names] if lengths is None else lengths
    lines = [f"{name}\t{length}\n" for name, length in zip(names, lengths, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join([f"{root}\n", *lines]))
    return path


def config(path: Path | str, **options: Any) -> AudioDataConfig:
    return AudioDataConfig(**{"path": str(path), "num_workers": 0, "hold_out": 0.0, **options})
