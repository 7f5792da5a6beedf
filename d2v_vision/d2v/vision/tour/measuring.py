"""What a tour measures, and the figures in the shape that the report has them."""

from collections.abc import Mapping
from typing import Any

from d2v.core.probes import Accuracy, Figures
from d2v.core.probes.figures import nested

POOLINGS = ("mean", "grid")
LABELS, DRAWS = 100, 5
_PROBES = {"knn": "knn", "linear": "linear", "few": f"linear_{LABELS}"}
_COLUMNS = {"input": "pixels", "random_init": "random_init", "pretrained": "pretrained"}


def report_tree(figures: Figures, finetuned: Mapping[str, Accuracy]) -> dict[str, Any]:
    """The figures as `report.json` holds them, rounded to two decimals.

    Args:
        figures: of probes; those of the raw input stand beside each pooling.
        finetuned: after fine-tuning on few labels, by what it started from.

    Returns:
        Percent under "probe" and "finetune_100"; under "std" the same tree of standard deviations, as far as there are.

    >>> report_tree(Figures(accuracies={}, neighbours=10, labels=100, num_train=2, num_test=2),
    ...             {"scratch": Accuracy(percent=58.123, std=1.0)})
    {'finetune_100': {'scratch': 58.12}, 'std': {'finetune_100': {'scratch': 1.0}}}
    """
    found: dict[tuple[str, ...], Accuracy] = {}
    for case, accuracy in figures.accuracies.items():
        for pooling in POOLINGS if case.features == "input" else (case.pooling,):
            found["probe", pooling, _PROBES[case.probe], _COLUMNS[case.features]] = accuracy
    found |= {(f"finetune_{LABELS}", start): accuracy for start, accuracy in finetuned.items()}
    percent = nested((path, round(accuracy.percent, 2)) for path, accuracy in found.items())
    stds = nested((path, round(accuracy.std, 2)) for path, accuracy in found.items() if accuracy.std is not None)
    return {**percent, "std": stds}
