"""Whether a tokenizer is that of a model: vocabulary size and special ids."""

from attrs import evolve

from d2v.core.data import DataError
from d2v.core.model import AdapterConfig, ModalityAdapter
from d2v.text.adapter import TextAdapter
from d2v.text.config import TextAdapterConfig
from d2v.text.tokenizing.special import PADDING
from d2v.text.tokenizing.tokenizer import Tokenizer
from d2v.text.tokens import TokenEmbedding


def matching_adapter(adapter: AdapterConfig, vocabulary_size: int, *, path: str) -> TextAdapterConfig:
    """Return an adapter's configuration with the vocabulary size and the special ids of a tokenizer.

    Args:
        adapter: configuration of the adapter.
        vocabulary_size: of the tokenizer.
        path: of the data, for the message.

    Raises:
        DataError: if the adapter does not take token ids.

    >>> matching_adapter(TextAdapterConfig(vocabulary_size=9, mask_id=8), 300, path="tokens").mask_id
    299
    """
    if not isinstance(adapter, TextAdapterConfig):
        raise DataError(f"data.path={path!r} gives token ids, but the model has a {type(adapter).__name__}")
    return evolve(
        adapter,
        vocabulary_size=vocabulary_size,
        padding_id=PADDING,
        mask_id=None if adapter.mask_id is None else vocabulary_size - 1,
    )


def check_adapter(adapter: ModalityAdapter, tokenizer: Tokenizer, *, path: str) -> None:
    """Check that an adapter takes the ids of a tokenizer.

    Raises:
        DataError: naming what differs.

    >>> from d2v.text.tokenizing import train_tokenizer
    >>> tokenizer = train_tokenizer(["low lower"], vocabulary_size=262)
    >>> check_adapter(TextAdapter(vocabulary_size=300, embed_dim=8), tokenizer, path="tokens")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    d2v.core.data.broken.DataError: data.path='tokens': the tokenizer has vocabulary_size=262 (300), the model what ...
    """
    front = adapter.front
    if not isinstance(adapter, TextAdapter) or not isinstance(front, TokenEmbedding):
        raise DataError(f"data.path={path!r} gives token ids, but the model has a {type(adapter).__name__}")
    values = {
        "vocabulary_size": (tokenizer.vocabulary_size, front.tokens.num_embeddings),
        "padding_id": (tokenizer.padding_id, front.padding_id),
        "mask_id": (tokenizer.mask_id, adapter.mask_id),
    }
    differing = [f"{key}={own} ({theirs})" for key, (own, theirs) in values.items() if theirs not in (None, own)]
    if differing:
        raise DataError(
            f"data.path={path!r}: the tokenizer has {', '.join(differing)}, the model what is in brackets; use the "
            "tokenizer of the model"
        )
