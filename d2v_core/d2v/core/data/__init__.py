"""Data: batch plans, loading, broken samples, and sources of batches with a resumable position."""

from d2v.core.data.batches import Batches
from d2v.core.data.broken import BrokenSampleError, DataError
from d2v.core.data.budget import BudgetPlan
from d2v.core.data.config import DataConfig, Splits
from d2v.core.data.contents import Contents
from d2v.core.data.draws import few_of_each, sample_seed
from d2v.core.data.fixed import FixedPlan
from d2v.core.data.held_out import HoldOut
from d2v.core.data.identity import Identity, identity_of, name_keys
from d2v.core.data.items import item_error, item_list
from d2v.core.data.loader import Loader, Samples
from d2v.core.data.mixture import Mixture
from d2v.core.data.names import escaped, unescaped
from d2v.core.data.permutation import KeyedPermutation
from d2v.core.data.plan import Plan, Request
from d2v.core.data.random_order import RandomOrderPlan
from d2v.core.data.seen import Seen
from d2v.core.data.stream import Stream, StreamLoader

__all__ = [
    "Batches",
    "BrokenSampleError",
    "BudgetPlan",
    "Contents",
    "DataConfig",
    "DataError",
    "FixedPlan",
    "HoldOut",
    "Identity",
    "KeyedPermutation",
    "Loader",
    "Mixture",
    "Plan",
    "RandomOrderPlan",
    "Request",
    "Samples",
    "Seen",
    "Splits",
    "Stream",
    "StreamLoader",
    "escaped",
    "few_of_each",
    "identity_of",
    "item_error",
    "item_list",
    "name_keys",
    "sample_seed",
    "unescaped",
]
