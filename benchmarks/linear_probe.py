"""Time of logistic regression by `fit_linear` and by scikit-learn, alternating in one process, and their objectives.

Both minimise mean cross-entropy + strength * |W|^2 on the same standardised features. scikit-learn gets the largest
tolerance that reaches the best objective within 1e-6 (relative), determined before the timing; `fit_linear` runs with
its default. Times are CPU seconds, which other programs affect little. Needs `pip install scikit-learn`. Example:
`OMP_NUM_THREADS=1 python benchmarks/linear_probe.py`.
"""

import argparse
import statistics
import time
import warnings
from typing import NamedTuple

import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from d2v.core.probes import Labelled, fit_linear
from d2v.core.probes.labelled import Standardisation

WITHIN = 1e-6
LONG = 10.0  # limit of the repeats of a case in seconds, about
TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)


class Case(NamedTuple):
    """Features, classes and penalty of one row of the table."""

    kind: str
    n: int
    d: int
    classes: int
    strength: float


CASES = [
    *(Case("clouds", n, 96, 10, strength) for n in (100, 1000, 10_000) for strength in (1e-1, 1e-5)),
    *(Case("correlated", n, 384, 10, strength) for n in (100, 1000, 10_000) for strength in (1e-1, 1e-3, 1e-5)),
    *(Case("correlated", n, 1536, 10, strength) for n in (100, 1000) for strength in (1e-1, 1e-3, 1e-5)),
    *(Case("pixels", n, 784, 10, strength) for n in (100, 1000, 10_000) for strength in (1e-1, 1e-3, 1e-5)),
    *(Case("correlated", 1000, 768, 100, strength) for strength in (1e-1, 1e-3, 1e-5)),
    *(Case("correlated", 10_000, d, classes, 1e-3) for d, classes in ((768, 100), (1536, 10))),
]


def features(case: Case) -> Labelled:
    """Create the samples of a case; the same each time."""
    if case.kind == "pixels":
        from d2v.core.probes import raw_features
        from d2v.vision import ImageDataConfig

        data = ImageDataConfig(path="fashion-mnist", size=28, resize=28, channels=1, num_workers=0)
        raw = raw_features(data.build("train", batch_size=1000))
        assert raw is not None  # images of one size
        whole = raw.labelled("raw", "input")
        return whole.take(torch.arange(case.n))
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(case.n) % case.classes
    hidden = min(case.d, 64)
    centres = torch.randn(case.classes, hidden, generator=generator)
    x = F.pad(centres, (0, case.d - hidden))[labels] + 2 * torch.randn(case.n, case.d, generator=generator)
    if case.kind == "correlated":  # a spectrum like that of encoder features, rotated
        spectrum = torch.arange(1, case.d + 1) ** -1.0
        x = x * spectrum @ torch.linalg.qr(torch.randn(case.d, case.d, generator=generator)).Q
    return Labelled(features=x, labels=labels)


def objective(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, strength: float) -> float:
    """Compute the objective in double precision."""
    return float(F.cross_entropy(x @ weight + bias, y) + strength * weight.square().sum())


class Library:
    """`fit_linear` with its default tolerance."""

    def __init__(self, case: Case, train: Labelled) -> None:
        self.case, self.train = case, train

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Fit; return weight and bias."""
        found = fit_linear(self.train, strength=self.case.strength)
        return found.weight.double(), found.bias.double()


class ScikitLearn:
    """scikit-learn's logistic regression, including standardisation."""

    def __init__(self, case: Case, train: Labelled, tolerance: float) -> None:
        self.train = train
        weight = 1 / (2 * case.n * case.strength)
        self.model = LogisticRegression(C=weight, tol=tolerance, max_iter=20_000)

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Fit; return weight and bias."""
        x = self.train.features.double()
        self.model.fit(Standardisation.of(x)(x).numpy(), self.train.labels.numpy())
        return torch.from_numpy(self.model.coef_.T), torch.from_numpy(self.model.intercept_)


def row(case: Case, repeats: int) -> str:
    """Measure a case; return a line of the table."""
    train = features(case)
    x = train.features.double()
    x = Standardisation.of(x)(x)

    def reached(fit: Library | ScikitLearn) -> float:
        return objective(x, train.labels, *fit(), case.strength)

    library = Library(case, train)
    objectives = [reached(library)]
    for tolerance in TOLERANCES:
        reference = ScikitLearn(case, train, tolerance)
        objectives.append(reached(reference))
        if objectives[-1] <= min(objectives) * (1 + WITHIN):
            break
    taken: tuple[list[float], list[float]] = [], []
    for _ in range(repeats):
        if min(map(sum, taken)) > LONG:
            break
        for fit, into in zip((library, reference), taken, strict=True):
            start = time.process_time()
            fit()
            into.append(time.process_time() - start)
    fast, other = map(statistics.median, taken)
    difference = (objectives[0] - objectives[-1]) / objectives[-1]
    names = f"| {case.kind} | {case.n:,} | {case.d} | {case.classes} | {case.strength:.0e} "
    times = f"| {fast:.3g} | {other:.3g} | {other / fast:.2f} | {tolerance:.0e} "
    return f"{names}{times}| {objectives[0]:.8f} | {difference:+.0e} |"


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="only rows that begin so: pixels, 'correlated 1000'")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", module="sklearn")
    print(
        "| features | n | d | classes | strength | library | scikit-learn | ratio | its tol | objective | difference |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for case in CASES:
        if f"{case.kind} {case.n} {case.d} {case.classes}".startswith(arguments.only):
            print(row(case, arguments.repeats), flush=True)


if __name__ == "__main__":
    main()
