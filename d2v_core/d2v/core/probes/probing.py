"""Run all probes on features: from features of each split to accuracies.

This module is independent of encoders and data sets, so that features can be collected once and reused.
"""

from collections.abc import Mapping
from typing import Literal

from attrs import field, frozen, validators

from d2v.core.probes.features import Features
from d2v.core.probes.few_labels import few_label_probe
from d2v.core.probes.labelled import Labelled, hold_out
from d2v.core.probes.linear import linear_probe
from d2v.core.probes.neighbours import knn_predictions
from d2v.core.probes.results import Case, ProbeResults, Score

Probe = Literal["knn", "linear", "few"]


@frozen(kw_only=True)
class Probing:
    """Which classifiers to run on features, and their settings.

    Args:
        probes: knn = nearest neighbours, linear = all labels, few = linear with few labels.
        neighbours: k, at least 1.
        labels: number of labels of the probe with few labels, at least 2.
        draws: number of draws of few labels, at least 1.
        balanced: draw few labels equally from all classes; false = at random.
        seed: of draws and of held-out samples, at least 0.

    Raises:
        ValueError: if there is no probe, or a number is out of its range.

    >>> import torch
    >>> x = torch.arange(20.0)[:, None]
    >>> some = Features(values={"all": {"mean": x}}, ids=torch.arange(20), labels=(x[:, 0] > 9).long())
    >>> results = Probing(probes=("knn", "linear"), neighbours=3).measure("pretrained", {"train": some, "test": some})
    >>> {case.probe: score.percent for case, score in results.scores.items()}
    {'knn': 100.0, 'linear': 100.0}
    """

    probes: tuple[Probe, ...] = field(default=("knn", "linear", "few"), validator=validators.min_len(1))
    neighbours: int = field(default=10, validator=validators.ge(1))
    labels: int = field(default=100, validator=validators.ge(2))
    draws: int = field(default=5, validator=validators.ge(1))
    balanced: bool = True
    seed: int = field(default=0, validator=validators.ge(0))

    def measure(self, name: str, parts: Mapping[str, Features]) -> ProbeResults:
        """Accuracies on "test" for each choice of layers and each pooling, with settings chosen on "val".

        Args:
            name: of the features: raw, untrained or pretrained.
            parts: features of "train", and of "val" and "test" if there are such splits. Without "val", settings are
                chosen on a fifth of the training samples; without "test", accuracies are measured on a fifth of them.

        Raises:
            ValueError: if there are no labels, only one class, features that are not finite, or no probe that can run.
                A probe with more neighbours or labels than there are samples is left out.
        """
        scores: dict[Case, Score] = {}
        left_out: dict[str, None] = {}
        num_train = num_test = 0
        few = f"{self.labels} labels" if self.balanced else f"{self.labels} unbalanced labels"
        for layers, poolings in parts["train"].values.items():
            for pooling in poolings:
                sets = {part: features.labelled(pooling, layers) for part, features in parts.items()}
                train, val, test = sets["train"], sets.get("val"), sets.get("test")
                if test is None:
                    train, test = hold_out(train, seed=self.seed)
                num_train, num_test = len(train.labels), len(test.labels)
                train.classes()  # raises for a single class
                impossible = {probe: reason for probe in self.probes if (reason := self._impossible(probe, num_train))}
                if len(impossible) == len(self.probes):
                    raise ValueError("; ".join(impossible.values()))
                left_out |= dict.fromkeys((*impossible.values(), *_uneven(train, test)))
                for probe in (probe for probe in self.probes if probe not in impossible):
                    # The raw input has no layers.
                    case = Case(name, "-", "-", probe) if layers == "input" else Case(name, layers, pooling, probe)
                    scores[case] = self._score(probe, train, val, test)
        return ProbeResults(
            scores=scores,
            titles={"knn": f"{self.neighbours}-NN", "linear": "linear", "few": few},
            num_train=num_train,
            num_test=num_test,
            left_out=tuple(left_out),
        )

    def _impossible(self, probe: Probe, samples: int) -> str | None:
        """Why a probe cannot run on so few samples; None if it can."""
        if probe == "knn" and self.neighbours > samples:
            return f"{self.neighbours}-NN: there are only {samples} training samples; set neighbours={samples}"
        if probe == "few" and self.labels > samples:
            return f"{self.labels} labels: there are only {samples} training samples; set labels={samples}"
        return None

    def _score(self, probe: Probe, train: Labelled, val: Labelled | None, test: Labelled) -> Score:
        if probe == "knn":
            found = knn_predictions(train, test.features, k=self.neighbours)
            return Score.of_correct((found == test.labels)[None])
        if probe == "linear":
            return Score.of_correct(linear_probe(train, test, val=val, seed=self.seed).correct[None])
        few = few_label_probe(
            train, test, labels=self.labels, draws=self.draws, val=val, seed=self.seed, balanced=self.balanced
        )
        return Score.of_correct(few.correct)


def _uneven(train: Labelled, test: Labelled) -> list[str]:
    """Lines on classes that only one of the two splits has."""
    known, tested = set(train.labels.tolist()), set(test.labels.tolist())
    lines = []
    if untested := len(known - tested):
        lines.append(f"{untested} of {len(known)} classes have no test sample")
    if unknown := len(tested - known):
        lines.append(f"{unknown} of {len(tested)} classes have no training sample; their samples count as wrong")
    return lines
