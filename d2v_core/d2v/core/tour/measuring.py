"""The figures of a tour: what simple classifiers make of features, and what fine-tuning on few labels gives."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import field, frozen

from d2v.core.data import DataConfig, DataError
from d2v.core.jobs.finetuning import trial
from d2v.core.labels import Classes
from d2v.core.model import Batch, Student, StudentConfig
from d2v.core.probes import Features, collect_features, few_label_probe, knn_accuracy, linear_probe
from d2v.core.recipes import FinetuneRecipe

POOLINGS = ("mean", "grid")
LABELS, DRAWS = 100, 5
_BATCH = 500


@frozen(kw_only=True)
class Parts:
    """A labelled data set in memory.

    Args:
        batches: of the splits "train", "val" and "test".
        labels: their classes.
    """

    batches: Mapping[str, Sequence[Batch]]
    labels: Classes

    @classmethod
    def of(cls, data: DataConfig) -> "Parts":
        """Read the three parts of a data set.

        Raises:
            DataError: if a part or the labels are not there.
        """
        known, labels = data.splits(), data.labels(Classes)
        assert isinstance(labels, Classes)  # they were asked for
        names = {"train": known.train, "val": known.val, "test": known.test}
        batches = {
            part: list(data.build(split, batch_size=_BATCH, labels=labels)) for part, split in names.items() if split
        }
        if len(batches) < len(names):
            raise DataError(f"data.path={data.path!r} needs the splits train, val and test")
        return cls(batches=batches, labels=labels)

    def whole(self, part: str) -> Batch:
        """All samples of a part, with ids and labels."""
        batches = self.batches[part]
        return Batch(
            source=torch.cat([batch.source for batch in batches]),
            ids=torch.cat([batch.ids for batch in batches if batch.ids is not None]),
            labels=torch.cat([batch.labels for batch in batches if batch.labels is not None]),
            modality=batches[0].modality,
        )

    def features(self, encoder: Student) -> dict[str, Features]:
        """Features of all parts, the mean of all blocks."""
        return {part: collect_features(encoder, some, poolings=POOLINGS) for part, some in self.batches.items()}


@frozen(kw_only=True)
class Score:
    """An accuracy.

    Args:
        accuracy: percent.
        std: standard deviation over draws of labels; None where nothing was drawn.
    """

    accuracy: float
    std: float | None = None


def probed(features: Mapping[str, Features], *, layers: str, pooling: str, seed: int) -> dict[str, Score]:
    """Accuracies on "test" by probe, all settings chosen on "val"."""
    train, val, test = (features[part].labelled(pooling, layers) for part in ("train", "val", "test"))
    few = few_label_probe(train, test, labels=LABELS, draws=DRAWS, val=val, seed=seed)
    return {
        "knn": Score(accuracy=knn_accuracy(train, test)),
        "linear": Score(accuracy=linear_probe(train, test, val=val, seed=seed).accuracy),
        f"linear_{LABELS}": Score(accuracy=few.mean, std=few.std),
    }


def fine_tuned(
    recipes: Sequence[FinetuneRecipe],
    encoders: Sequence[tuple[Student, StudentConfig]],
    parts: Parts,
    device: torch.device,
) -> Score:
    """Accuracy on "test" after fine-tuning, over draws of the labels: a recipe and an encoder for each."""
    found = [
        trial(recipe, encoder, config, parts.batches["test"], labels=parts.labels, device=device)
        for recipe, (encoder, config) in zip(recipes, encoders, strict=True)
    ]
    return Score(accuracy=statistics.fmean(found), std=statistics.stdev(found))


@frozen
class Figures:
    """Scores as they come, and the tree that the report holds.

    >>> figures = Figures()
    >>> figures.probe("mean", "pretrained", {"knn": Score(accuracy=83.94, std=None)})
    >>> figures.to_plain()["probe"]
    {'mean': {'knn': {'pretrained': 83.94}}}
    """

    _found: dict[tuple[str, ...], Score] = field(factory=dict)

    def probe(self, pooling: str, features: str, scores: Mapping[str, Score]) -> None:
        """Take the scores of features under a pooling, by probe."""
        for name, score in scores.items():
            self._found["probe", pooling, name, features] = score

    def finetune(self, start: str, score: Score) -> None:
        """Take the score of fine-tuning from a start."""
        self._found[f"finetune_{LABELS}", start] = score

    def to_plain(self) -> dict[str, Any]:
        """Accuracies under "probe" and "finetune_100"; their stds, as far as there are any, under "std"."""
        plain: dict[str, Any] = {}
        for keys, score in self._found.items():
            _put(plain, keys, round(score.accuracy, 2))
            if score.std is not None:
                _put(plain, ("std", *keys), round(score.std, 2))
        return plain


def _put(tree: dict[str, Any], keys: tuple[str, ...], value: float) -> None:
    *path, last = keys
    for key in path:
        tree = tree.setdefault(key, {})
    tree[last] = value
