"""Convert the recordings that a user passes to waveforms: paths, pairs of array and sampling rate, and tensors."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2v.audio.recordings.reading import Reader
from d2v.core.data import BrokenSampleError, item_error, item_list


def item_waveforms(items: Iterable[Any], reader: Reader) -> Iterator[Tensor]:
    """Yield waveforms `s` in the order of the items; files are read like those of a folder.

    Args:
        items: paths; pairs (array, rate in Hz) with an array `s` or `s c`, or a tensor `s` or `c s`; or arrays and
            tensors alone, at the rate of the model. Integers are scaled by their type, so that full scale is 1.
        reader: reads files and converts the rest.

    Raises:
        DataError: naming the item, if one is broken or of another type; if there are none.

    >>> [waveform] = item_waveforms([(np.zeros(800, dtype=np.int16), 16000)], Reader())
    >>> waveform.shape, waveform.dtype
    (torch.Size([800]), torch.float32)
    """
    for index, item in enumerate(item_list(items)):
        try:
            waveform = _waveform(item, reader)
        except BrokenSampleError as error:
            raise item_error(index, item, error.reason) from error
        except (TypeError, ValueError, OSError, MemoryError) as error:
            raise item_error(index, item, str(error)) from error
        yield waveform


def _waveform(item: Any, reader: Reader) -> Tensor:
    if isinstance(item, str | os.PathLike):
        return reader.read(item)
    values, rate = item if isinstance(item, tuple | list) and len(item) == 2 else (item, reader.sample_rate)
    return reader.converted(_samples(values), int(rate))


def _samples(values: Any) -> Tensor:
    """Samples as float32, `s` or `s c`."""
    if not isinstance(values, np.ndarray | Tensor):
        raise TypeError("a recording must be a path, a pair (array, rate in Hz), an array or a tensor")
    is_tensor = isinstance(values, Tensor)
    found = values.detach().cpu() if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
    if found.dim() not in (1, 2) or found.is_complex() or found.dtype in (torch.bool, torch.uint8):
        layout = "c s" if is_tensor else "s c"
        raise ValueError(f"must be floats or signed integers, s or {layout}")
    scale = 1.0 if found.is_floating_point() else float(torch.iinfo(found.dtype).max) + 1
    found = found.to(torch.float32) / scale
    return found.T if found.dim() == 2 and is_tensor else found
