"""Samples and batches of texts: token ids with the special tokens of sentences and pairs, and labels."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor

from d2v.core.data import DataError, Identity, escaped, few_of_each
from d2v.core.labels import Classes, Labels, Number
from d2v.core.model import Batch
from d2v.core.suggestions import nearest
from d2v.text.sentences.reading import line_error
from d2v.text.sentences.text_set import Texts
from d2v.text.tokenizing import BOS, EOS, PADDING, Tokenizer
from d2v.text.tokenizing.tokenizer import Ids

_SINGLE, _PAIR = 2, 4
"""Special tokens of a sentence and of a pair."""
_CHUNK = 10_000  # texts that are encoded together


class Rows:
    """Rows of token ids in one array, of four bytes an id.

    Args:
        rows: of any lengths.

    >>> rows = Rows([np.array([5, 6]), np.array([7])])
    >>> rows[1].tolist(), rows.lengths.tolist()
    ([7], [2, 1])
    """

    def __init__(self, rows: Sequence[Ids]) -> None:
        self.lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
        self._ends = self.lengths.cumsum(0).tolist()
        self._ids = np.concatenate([np.zeros(0, dtype=np.int32), *(row.astype(np.int32) for row in rows)])

    def __getitem__(self, id: int) -> Ids:
        """The ids of a row."""
        end: int = self._ends[id]
        return self._ids[end - int(self.lengths[id]) : end].astype(np.int64)

    @classmethod
    def joined(cls, parts: Sequence["Rows"]) -> "Rows":
        """The rows of all parts."""
        found = cls([])
        found.lengths = torch.cat([found.lengths, *(part.lengths for part in parts)])
        found._ends = found.lengths.cumsum(0).tolist()
        found._ids = np.concatenate([found._ids, *(part._ids for part in parts)])
        return found


@frozen(kw_only=True, eq=False)
class Encoded:
    """Token ids of texts without special tokens.

    Args:
        first: of each text.
        second: of each second text; None = there are no pairs.
    """

    first: Rows = field(repr=False)
    second: Rows | None = field(default=None, repr=False)

    @classmethod
    def of(cls, texts: Texts, tokenizer: Tokenizer) -> "Encoded":
        """Encode texts.

        Raises:
            DataError: naming the line of a text that cannot be encoded.
        """
        first = _encoded(texts.texts, texts, tokenizer)
        return cls(first=first, second=None if texts.pairs is None else _encoded(texts.pairs, texts, tokenizer))

    def lengths(self) -> Tensor:
        """Tokens of each sample with its special tokens, Long `n`."""
        if self.second is None:
            return self.first.lengths + _SINGLE
        return self.first.lengths + self.second.lengths + _PAIR

    def sample(self, id: int, max_length: int) -> Ids:
        """Ids of a sample: `<s> A </s>` or `<s> A </s> </s> B </s>`.

        Args:
            id: of the sample.
            max_length: longer samples are cut, of a pair the longer text first; the special tokens are kept.
        """
        if self.second is None:
            return np.concatenate([[BOS], self.first[id][: max_length - _SINGLE], [EOS]])
        first, second = self.first[id], self.second[id]
        room = max_length - _PAIR
        if len(first) + len(second) > room:
            kept = max(room // 2, room - len(second))
            first, second = first[:kept], second[: room - min(kept, len(first))]
        return np.concatenate([[BOS], first, [EOS, EOS], second, [EOS]])


def _encoded(texts: Sequence[str], source: Texts, tokenizer: Tokenizer) -> Rows:
    parts = []
    for start in range(0, len(texts), _CHUNK):
        some = texts[start : start + _CHUNK]
        try:
            parts.append(Rows(tokenizer.encode_lines(some)))
        except ValueError:
            for text, (file, line) in zip(some, source.places[start:], strict=False):  # given items have no places
                try:
                    tokenizer.encode(text)
                except ValueError as error:
                    raise line_error(file, line, str(error)) from error
            raise
    return Rows.joined(parts)


class SentenceSamples:
    """Samples of a split.

    Args:
        source: the texts.
        encoded: their tokens.
        kept: ids of the texts that are used, Long.
        max_length: longer samples are cut.
        labels: label of each text of the source, Long or float `n`; None = there are none.
    """

    def __init__(
        self, source: Texts, encoded: Encoded, *, kept: Tensor, max_length: int, labels: Tensor | None
    ) -> None:
        self.source, self.encoded, self.kept = source, encoded, kept
        self.max_length, self.labels = max_length, labels

    def __len__(self) -> int:
        return len(self.kept)

    def name(self, id: int) -> str:
        """File and line of a text."""
        return self.source.name(id)

    def identity(self) -> Identity:
        """Identity of the texts, from the texts themselves."""
        return Identity.of(self.source.keys()[self.kept])

    def get(self, id: int, *, seed: int, epoch: int) -> tuple[int, Ids, Tensor | None]:
        """Return the id in the source, token ids and label of a sample; nothing of it is random."""
        del seed, epoch
        own = int(self.kept[id])
        return own, self.encoded.sample(own, self.max_length), None if self.labels is None else self.labels[own]


def collate(samples: list[tuple[int, Ids, Tensor | None]], ids: Tensor) -> Batch:
    """Make a batch, padded at the end; it has the ids of the source."""
    del ids  # indices among the kept texts
    labels = [label for _, _, label in samples if label is not None]
    return Batch(
        source=padded([tokens for _, tokens, _ in samples]),
        ids=torch.tensor([id for id, _, _ in samples]),
        labels=torch.stack(labels) if labels else None,
    )


def padded(rows: Sequence[Ids]) -> Tensor:
    """Token ids `b t` of rows of different lengths.

    >>> padded([np.array([0, 5, 2]), np.array([0, 2])]).tolist()
    [[0, 5, 2], [0, 2, 1]]
    """
    tensors = [torch.from_numpy(np.asarray(row, dtype=np.int64)) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=PADDING)


def numbered(path: str, texts: Texts, labels: Labels, *, label: str | None) -> Tensor:
    """Labels of texts as a task needs them: Long `n` class numbers, or float `n`.

    Args:
        path: name of the data in messages.
        texts: with labels.
        labels: the classes and their numbering, or numbers.
        label: the column that was asked for.

    Raises:
        DataError: naming the line, if a label is no class of the numbering or no number; if there are no labels.
    """
    if texts.given is None or not isinstance(labels, Classes | Number):
        raise unlabelled(path, type(labels), label)
    if isinstance(labels, Number):
        return torch.tensor([_number(texts, id) for id in range(len(texts))])
    known = {name: number for number, name in enumerate(labels.names)}
    for (file, line), name in zip(texts.places, texts.given, strict=True):
        if name not in known:
            shown = ", ".join(map(escaped, labels.names[:5])) + (", ..." if len(known) > 5 else "")
            raise line_error(file, line, f"{name!r} is none of the {len(known)} classes {shown}{nearest(name, known)}")
    return torch.tensor([known[name] for name in texts.given])


def few_ids(path: str, source: Texts, numbers: Tensor | None, per_class: int, *, seed: int, among: Tensor) -> Tensor:
    """Draw the ids of `per_class` texts of each class.

    Args:
        path: name of the data in messages.
        source: the texts.
        numbers: class of each text; None or floats = there are no classes.
        per_class: texts of each class.
        seed: seed of the draw.
        among: ids to draw from, Long.

    Raises:
        DataError: if there are no classes, or one has fewer texts.
    """
    if numbers is None or numbers.is_floating_point() or source.given is None:
        raise DataError(f"data.per_class={per_class} needs classes, which data.path={path!r} does not have here")
    usable = torch.full_like(numbers, -1)
    usable[among] = numbers[among]
    counts = Counter(source.given[id] for id in among.tolist())
    for name in sorted(set(source.given)):
        if counts[name] < per_class:
            raise DataError(f"data.per_class={per_class}, but class {name!r} has only {counts[name]} texts")
    return few_of_each(usable, per_class, seed=seed)


def unlabelled(path: str, wanted: type[Labels], label: str | None) -> DataError:
    """The error for texts without the labels that a task needs."""
    if wanted not in (Classes, Number):
        return DataError(
            f"data.path={path!r}: texts have {Classes.what} or {Number.what}, but the task needs {wanted.what}"
        )
    column = "a column label, or set data.label to the column" if label is None else f"the column {label!r}"
    return DataError(f"data.path={path!r} has no labels ({wanted.what}): it needs {column}")


def _number(texts: Texts, id: int) -> float:
    assert texts.given is not None
    try:
        value = float(texts.given[id])
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise line_error(*texts.places[id], f"the label {texts.given[id]!r} is not a finite number")
    return value
