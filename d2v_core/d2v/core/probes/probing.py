"""All probes of features at once: out of features by part come figures.

It knows nothing of encoders or data sets, so features can be collected once and used for something else as well.
"""

from collections.abc import Mapping
from typing import Literal

from attrs import field, frozen, validators

from d2v.core.probes.features import Features
from d2v.core.probes.few_labels import few_label_probe
from d2v.core.probes.labelled import Labelled, hold_out
from d2v.core.probes.linear import linear_probe
from d2v.core.probes.neighbours import knn_predictions
from d2v.core.probes.results import Accuracy, Case, ProbeResults

Probe = Literal["knn", "linear", "few"]


@frozen(kw_only=True)
class Probing:
    """Which classifiers features are tried with, and how.

    Args:
        probes: knn = nearest neighbours, linear = all labels, few = linear with few labels.
        neighbours: k, at least 1.
        labels: how many the few are, at least 2.
        draws: draws of the few labels, at least 1.
        seed: of draws and of what is held out, at least 0.

    Raises:
        ValueError: if there is no probe, or a number is out of its range.

    >>> import torch
    >>> x = torch.arange(20.0)[:, None]
    >>> some = Features(values={"all": {"mean": x}}, ids=torch.arange(20), labels=(x[:, 0] > 9).long())
    >>> figures = Probing(probes=("knn", "linear"), neighbours=3).measure("pretrained", {"train": some, "test": some})
    >>> {case.probe: accuracy.percent for case, accuracy in figures.accuracies.items()}
    {'knn': 100.0, 'linear': 100.0}
    """

    probes: tuple[Probe, ...] = field(default=("knn", "linear", "few"), validator=validators.min_len(1))
    neighbours: int = field(default=10, validator=validators.ge(1))
    labels: int = field(default=100, validator=validators.ge(2))
    draws: int = field(default=5, validator=validators.ge(1))
    seed: int = field(default=0, validator=validators.ge(0))

    def measure(self, name: str, parts: Mapping[str, Features]) -> ProbeResults:
        """Accuracies on "test" under each choice of layers and each pooling, with settings chosen on "val".

        Args:
            name: whose features they are: input, untrained or pretrained.
            parts: features of "train", and of "val" and "test" where there are such parts. Without "val", settings are
                chosen on a fifth of the training samples; without "test", figures are of a fifth of them.

        Raises:
            ValueError: if there are no labels, one class only, features that are not finite, or no probe that can be
                run: one of more neighbours or labels than there are samples is left out.
        """
        accuracies: dict[Case, Accuracy] = {}
        left_out: dict[str, None] = {}
        num_train = num_test = 0
        for layers, poolings in parts["train"].values.items():
            for pooling in poolings:
                sets = {part: features.labelled(pooling, layers) for part, features in parts.items()}
                train, val, test = sets["train"], sets.get("val"), sets.get("test")
                if test is None:
                    train, test = hold_out(train, seed=self.seed)
                num_train, num_test = len(train.labels), len(test.labels)
                train.classes()  # of one class only nothing can be told
                impossible = {probe: reason for probe in self.probes if (reason := self._impossible(probe, num_train))}
                if len(impossible) == len(self.probes):
                    raise ValueError("; ".join(impossible.values()))
                left_out |= dict.fromkeys((*impossible.values(), *_uneven(train, test)))
                for probe in (probe for probe in self.probes if probe not in impossible):
                    # The input has no layers.
                    case = Case(name, "-", "-", probe) if layers == "input" else Case(name, layers, pooling, probe)
                    accuracies[case] = self._accuracy(probe, train, val, test)
        return ProbeResults(
            accuracies=accuracies,
            neighbours=self.neighbours,
            labels=self.labels,
            num_train=num_train,
            num_test=num_test,
            left_out=tuple(left_out),
        )

    def _impossible(self, probe: Probe, samples: int) -> str | None:
        """Why a probe cannot learn from so many samples; None if it can."""
        if probe == "knn" and self.neighbours > samples:
            return f"{self.neighbours}-NN: there are {samples} samples to learn from; neighbours={samples} is possible"
        if probe == "few" and self.labels > samples:
            return f"{self.labels} labels: there are {samples} samples to learn from; labels={samples} is possible"
        return None

    def _accuracy(self, probe: Probe, train: Labelled, val: Labelled | None, test: Labelled) -> Accuracy:
        if probe == "knn":
            found = knn_predictions(train, test.features, k=self.neighbours)
            return Accuracy.of_correct((found == test.labels)[None])
        if probe == "linear":
            return Accuracy.of_correct(linear_probe(train, test, val=val, seed=self.seed).correct[None])
        few = few_label_probe(train, test, labels=self.labels, draws=self.draws, val=val, seed=self.seed)
        return Accuracy.of_correct(few.correct)


def _uneven(train: Labelled, test: Labelled) -> list[str]:
    """What is to be known of classes that only one part has."""
    known, asked = set(train.labels.tolist()), set(test.labels.tolist())
    lines = []
    if untested := len(known - asked):
        lines.append(f"{untested} of {len(known)} classes have no sample to test with")
    if unknown := len(asked - known):
        lines.append(f"{unknown} of {len(asked)} classes have no sample to learn from; their samples count as wrong")
    return lines
