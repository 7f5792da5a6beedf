"""Data: the order of samples, their sharing out, broken ones, and the loader that yields batches of one split."""

from d2v.core.data.broken import BrokenSampleError, DataError
from d2v.core.data.config import DataConfig, Splits
from d2v.core.data.items import item_error, item_list
from d2v.core.data.loader import Loader, Samples
from d2v.core.data.order import Plan, epoch_order, few_of_each, sample_seed

__all__ = [
    "BrokenSampleError",
    "DataConfig",
    "DataError",
    "Loader",
    "Plan",
    "Samples",
    "Splits",
    "epoch_order",
    "few_of_each",
    "item_error",
    "item_list",
    "sample_seed",
]
