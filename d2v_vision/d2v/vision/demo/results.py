"""Settings of the quickstart's measurements, and the results in the form of the report."""

from collections.abc import Iterator, Mapping
from typing import Any

from d2v.core.probes import ProbeResults, Score
from d2v.core.probes.leads import lead
from d2v.core.probes.results import nested

POOLINGS = ("mean", "grid")
LABELS, DRAWS = 100, 5
_PROBES = {"knn": "knn", "linear": "linear", "few": f"linear_{LABELS}"}
_COLUMNS = {"raw": "pixels", "untrained": "untrained", "pretrained": "pretrained"}


def report_tree(probed: ProbeResults, finetuned: Mapping[str, Score]) -> dict[str, Any]:
    """Convert the results to the form of `report.json`, rounded to two decimals.

    Args:
        probed: results of the probes; those of the raw pixels are repeated for each pooling.
        finetuned: accuracies after fine-tuning on few labels, by initialisation.

    Returns:
        Percent under "probe" and "finetune_100"; under "std" the same tree of standard deviations, where there are any;
        under "lead" the same tree of the pretrained network's comparisons: "points" is its lead, "error" the standard
        error of the lead.

    >>> report_tree(ProbeResults(scores={}, titles={}, num_train=2, num_test=2),
    ...             {"scratch": Score(percent=58.123, std=1.0)})
    {'finetune_100': {'scratch': 58.12}, 'std': {'finetune_100': {'scratch': 1.0}}, 'lead': {}}
    """
    found: dict[tuple[str, ...], Score] = {}
    for case, accuracy in probed.scores.items():
        for pooling in POOLINGS if case.features == "raw" else (case.pooling,):
            found["probe", pooling, _PROBES[case.probe], _COLUMNS[case.features]] = accuracy
    found |= {(f"finetune_{LABELS}", start): accuracy for start, accuracy in finetuned.items()}
    percent = nested((path, round(accuracy.percent, 2)) for path, accuracy in found.items())
    stds = nested((path, round(accuracy.std, 2)) for path, accuracy in found.items() if accuracy.std is not None)
    return {**percent, "std": stds, "lead": nested(_leads(found, probed.num_test))}


def _leads(found: Mapping[tuple[str, ...], Score], num_test: int) -> Iterator[tuple[tuple[str, ...], dict[str, float]]]:
    """Yield the lead of the pretrained network over each accuracy that it is compared with."""
    tuned = (f"finetune_{LABELS}", "pretrained")
    # Fine-tuning is also compared with a linear classifier on as many labels.
    pixels = next((one for path, one in found.items() if path[2:] == (_PROBES["few"], "pixels")), None)
    compared = {path: other for path, other in found.items() if path[-1] != "pretrained"}
    if pixels is not None and tuned in found:
        compared[(*tuned[:-1], "pixels")] = pixels
    for path, other in compared.items():
        if (pretrained := found.get((*path[:-1], "pretrained"))) is not None:
            one = lead(pretrained, other, num_test=num_test)
            yield path, {"points": round(one.points, 2), "error": round(one.error, 2)}
