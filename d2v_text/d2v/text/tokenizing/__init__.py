"""Tokenizers: text to the ids that a text model reads, and back."""

from d2v.text.tokenizing.matching import check_adapter
from d2v.text.tokenizing.reading import has_tokenizer, read_tokenizer, tokenizer_of, write_tokenizer
from d2v.text.tokenizing.special import BOS, EOS, FIRST, PADDING, UNKNOWN
from d2v.text.tokenizing.tokenizer import Tokenizer
from d2v.text.tokenizing.training import train_tokenizer

__all__ = [
    "BOS",
    "EOS",
    "FIRST",
    "PADDING",
    "UNKNOWN",
    "Tokenizer",
    "check_adapter",
    "has_tokenizer",
    "read_tokenizer",
    "tokenizer_of",
    "train_tokenizer",
    "write_tokenizer",
]
