"""Readers of the original toolkit's checkpoints, and the common parts of its models."""

from d2v.core.foreign.fairseq.checkpoint import model_section, symbols_of, unpack
from d2v.core.foreign.fairseq.fine_tuned import FineTunedFormat, TaskReader
from d2v.core.foreign.fairseq.former import read_activation, read_schedule, read_target_norms, separate_block_rules
from d2v.core.foreign.fairseq.multimodal import ModalityReader, MultimodalFormat
from d2v.core.foreign.fairseq.pieces import block_rules, read_alibi, read_block_masks, read_context, read_noise

__all__ = [
    "FineTunedFormat",
    "ModalityReader",
    "MultimodalFormat",
    "TaskReader",
    "block_rules",
    "model_section",
    "read_activation",
    "read_alibi",
    "read_block_masks",
    "read_context",
    "read_noise",
    "read_schedule",
    "read_target_norms",
    "separate_block_rules",
    "symbols_of",
    "unpack",
]
