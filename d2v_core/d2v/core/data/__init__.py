"""Data: the order of samples, their sharing out, broken ones, and the loader that yields batches of one split."""

from d2v.core.data.broken import BrokenSampleError, DataError
from d2v.core.data.loader import Loader, Samples
from d2v.core.data.order import Plan, epoch_order, sample_seed
from d2v.core.data.protocols import DataConfig, Splits

__all__ = [
    "BrokenSampleError",
    "DataConfig",
    "DataError",
    "Loader",
    "Plan",
    "Samples",
    "Splits",
    "epoch_order",
    "sample_seed",
]
