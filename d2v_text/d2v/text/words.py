"""Words of texts as features: the baseline that a text encoder has to beat."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import torch
from attrs import evolve
from torch import Tensor

from d2v.core.data import DataConfig
from d2v.core.model import Batch
from d2v.core.probes import Features
from d2v.core.probes.features import described, joined
from d2v.text.tokenizing import EOS, Tokenizer, tokenizer_of

_MOST = 3_000  # words, the most frequent ones
_WORD = re.compile(r"\w\w+")


def bag_of_words(splits: Mapping[str, Iterable[Batch]], data: DataConfig) -> dict[str, Features]:
    """Weighted counts of words, float32 `n w`, of the texts of each split.

    A count is multiplied by the word's inverse document frequency, log((1 + n) / (1 + d)) + 1 with d of the n training
    texts that contain it (Salton and Buckley 1988), and each text is scaled to length 1. Words are those of the
    training texts, in lower case, with two letters or more; at most 3,000, the most frequent.

    Args:
        splits: batches of token ids by split; "train" is one of them.
        data: their configuration, whose files are those of the tokenizer.

    Returns:
        Features under `values["input"]["raw"]`, by split.

    Raises:
        ValueError: if the tokenizer is not known, or there are no batches.
    """
    tokenizer = tokenizer_of(data.files())
    described_batches = {split: list(_counted(batches, tokenizer)) for split, batches in splits.items()}
    train = [words for _, rows in described_batches["train"] for words in rows]
    documents = Counter(word for words in train for word in words)
    known = sorted(word for word, _ in documents.most_common(_MOST))
    weights = {word: math.log((1 + len(train)) / (1 + documents[word])) + 1 for word in known}
    columns = {word: column for column, word in enumerate(known)}
    return {
        split: joined([evolve(one, values={"input": {"raw": _table(rows, columns, weights)}}) for one, rows in batches])
        for split, batches in described_batches.items()
    }


def _counted(batches: Iterable[Batch], tokenizer: Tokenizer) -> Iterator[tuple[Features, list[Counter[str]]]]:
    first = 0
    for batch in batches:
        yield described(batch, first), [_words(row, tokenizer) for row in batch.source.tolist()]
        first += batch.size


def _words(ids: list[int], tokenizer: Tokenizer) -> Counter[str]:
    ends = [place for place, id in enumerate(ids) if id == EOS]
    parts = (tokenizer.decode(ids[start:end]) for start, end in zip([0, *ends], [*ends, len(ids)], strict=True))
    return Counter(_WORD.findall(" ".join(parts).lower()))


def _table(rows: list[Counter[str]], columns: Mapping[str, int], weights: Mapping[str, float]) -> Tensor:
    found = torch.zeros(len(rows), len(columns))
    for number, words in enumerate(rows):
        for word, count in words.items():
            if word in columns:
                found[number, columns[word]] = count * weights[word]
    return torch.nn.functional.normalize(found, dim=1)
