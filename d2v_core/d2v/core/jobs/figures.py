"""Accuracies of probes as values, and as a table that a person reads."""

from typing import Any

from attrs import frozen


@frozen(kw_only=True)
class Figure:
    """One accuracy.

    Args:
        features: of what: input, random_init or pretrained.
        layers: which were read; "-" for the input.
        pooling: how.
        probe: knn, linear or few.
        accuracy: percent; for few labels the mean over the draws.
        std: standard deviation over the draws; None where there is one draw only.
    """

    features: str
    layers: str
    pooling: str
    probe: str
    accuracy: float
    std: float | None = None


@frozen(kw_only=True)
class ProbeReport:
    """What `probe` found.

    Args:
        figures: all of them.
        neighbours: k of the nearest neighbours.
        labels: how many the few were.
        num_train: samples that were learned from.
        num_test: samples that the figures are of.
    """

    figures: tuple[Figure, ...]
    neighbours: int
    labels: int
    num_train: int
    num_test: int

    def table(self) -> str:
        """The figures for a person: one line for each kind of features, one column for each probe."""
        titles = {"knn": f"{self.neighbours}-NN", "linear": "linear", "few": f"{self.labels} labels"}
        lines = [f"{'features':<14}{'layers':<10}{'pooling':<9}" + "".join(f"{titles[p]:>14}" for p in self._probes())]
        rows: dict[tuple[str, str, str], dict[str, Figure]] = {}
        for one in self.figures:
            rows.setdefault((one.features, one.layers, one.pooling), {})[one.probe] = one
        for (features, layers, pooling), found in rows.items():
            cells = "".join(f"{_cell(found[probe]):>14}" for probe in self._probes())
            lines.append(f"{features:<14}{layers:<10}{pooling:<9}{cells}")
        told = f"accuracy in percent; {self.num_train} samples to learn from, {self.num_test} to test"
        return "\n".join([*lines, told]) + "\n"

    def to_plain(self) -> dict[str, Any]:
        """The figures as plain values: features -> layers -> pooling -> probe -> accuracy."""
        plain: dict[str, Any] = {}
        for one in self.figures:
            place = plain.setdefault(one.features, {}).setdefault(one.layers, {}).setdefault(one.pooling, {})
            place[one.probe] = one.accuracy if one.std is None else {"mean": one.accuracy, "std": one.std}
        return plain

    def _probes(self) -> list[str]:
        return list(dict.fromkeys(one.probe for one in self.figures))


def _cell(figure: Figure) -> str:
    return f"{figure.accuracy:.1f}" + ("" if figure.std is None else f" +-{figure.std:.1f}")
