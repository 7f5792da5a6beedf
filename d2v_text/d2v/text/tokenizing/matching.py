"""Whether a tokenizer is that of a model: vocabulary size and special ids."""

from d2v.core.data import DataError
from d2v.core.model import ModalityAdapter
from d2v.text.adapter import TextAdapter
from d2v.text.tokenizing.tokenizer import Tokenizer
from d2v.text.tokens import TokenEmbedding


def text_front(adapter: ModalityAdapter, *, path: str) -> TokenEmbedding:
    """Return the token embedding of an adapter.

    Args:
        adapter: of a model.
        path: of the data, for the message.

    Raises:
        DataError: if the adapter does not take token ids.

    >>> text_front(TextAdapter(vocabulary_size=9, embed_dim=8), path="tokens").max_length
    512
    """
    front = adapter.front
    if not isinstance(adapter, TextAdapter) or not isinstance(front, TokenEmbedding):
        raise DataError(f"data.path={path!r} gives token ids, but the model has a {type(adapter).__name__}")
    return front


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
    front = text_front(adapter, path=path)
    values = {
        "vocabulary_size": (tokenizer.vocabulary_size, front.tokens.num_embeddings),
        "padding_id": (tokenizer.padding_id, front.padding_id),
        "mask_id": (tokenizer.mask_id, getattr(adapter, "mask_id", None)),
    }
    differing = [f"{key}={own} ({theirs})" for key, (own, theirs) in values.items() if theirs not in (None, own)]
    if differing:
        raise DataError(
            f"data.path={path!r}: the tokenizer has {', '.join(differing)}, the model what is in brackets; use the "
            "tokenizer of the model"
        )
