"""Data: which samples make a batch, reading them, broken ones, and sources of batches that keep their place."""

from d2v.core.data.batches import Batches
from d2v.core.data.broken import BrokenSampleError, DataError
from d2v.core.data.budget import BudgetPlan
from d2v.core.data.config import DataConfig, Splits
from d2v.core.data.contents import Contents
from d2v.core.data.draws import few_of_each, sample_seed
from d2v.core.data.fixed import FixedPlan
from d2v.core.data.items import item_error, item_list
from d2v.core.data.loader import Loader, Samples
from d2v.core.data.mixture import Mixture
from d2v.core.data.names import escaped, unescaped
from d2v.core.data.permutation import KeyedPermutation
from d2v.core.data.plan import Plan, Request
from d2v.core.data.stream import Stream, StreamLoader

__all__ = [
    "Batches",
    "BrokenSampleError",
    "BudgetPlan",
    "Contents",
    "DataConfig",
    "DataError",
    "FixedPlan",
    "KeyedPermutation",
    "Loader",
    "Mixture",
    "Plan",
    "Request",
    "Samples",
    "Splits",
    "Stream",
    "StreamLoader",
    "escaped",
    "few_of_each",
    "item_error",
    "item_list",
    "sample_seed",
    "unescaped",
]
