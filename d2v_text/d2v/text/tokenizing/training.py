"""Train a tokenizer on text."""

import json
from collections.abc import Iterable

from d2v.text.tokenizing.reading import MERGES, VOCABULARY, tokenizer_of
from d2v.text.tokenizing.special import FIRST, MASK, NAMES
from d2v.text.tokenizing.tokenizer import Tokenizer, byte_letters, byte_level

SMALLEST = FIRST + 256 + 1
"""Smallest vocabulary: the special tokens and all bytes."""


def train_tokenizer(lines: Iterable[str], vocabulary_size: int) -> Tokenizer:
    """Train byte-pair encoding on lines of text; the same lines give the same tokenizer.

    Args:
        lines: text, read once. Only the counts of its words are held in memory.
        vocabulary_size: number of ids, special tokens included, at least 261.

    Raises:
        MissingExtraError: if tokenizers is not installed.
        ValueError: if the size is too small, or the text too short for it.

    >>> train_tokenizer(["the other day", "the other night"], vocabulary_size=265).vocabulary_size
    265
    """
    if vocabulary_size < SMALLEST:
        raise ValueError(
            f"vocabulary_size={vocabulary_size} must be at least {SMALLEST}: the 256 bytes and the special tokens"
        )
    split = byte_level()
    from tokenizers import Tokenizer as Trained
    from tokenizers import models, trainers

    trained = Trained(models.BPE())
    trained.pre_tokenizer = split
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - 1,
        special_tokens=list(NAMES),
        initial_alphabet=sorted(byte_letters()),
        show_progress=False,
    )
    trained.train_from_iterator(lines, trainer)
    model = json.loads(trained.to_str())["model"]
    if len(model["vocab"]) < vocabulary_size - 1:
        raise ValueError(
            f"vocabulary_size={vocabulary_size} is too large for this text, which gives {len(model['vocab']) + 1}; "
            "use more text or a smaller vocabulary"
        )
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    vocabulary = {**model["vocab"], MASK: vocabulary_size - 1}
    return tokenizer_of(
        {
            VOCABULARY: json.dumps(vocabulary, ensure_ascii=False).encode(),
            MERGES: "\n".join(["#version: 0.2", *pairs, ""]).encode(),
        }
    )
