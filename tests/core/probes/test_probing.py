"""All probes together: each gives the result of the probe alone, and results can be merged, shown and written."""

import pytest
import torch
from attrs import evolve

from d2v.core.probes import (
    Case,
    Features,
    ProbeResults,
    Probing,
    Score,
    few_label_probe,
    hold_out,
    knn_accuracy,
    linear_probe,
)

ROWS = [("0", "mean"), ("0", "grid"), ("all", "mean"), ("all", "grid")]


def features(n, seed):
    """Clouds of three classes, other values under each choice of layers and each pooling."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    values = {
        layers: {
            pooling: labels[:, None] + 0.8 * torch.randn(n, 4, generator=generator) for pooling in ("mean", "grid")
        }
        for layers in ("0", "all")
    }
    return Features(values=values, ids=torch.arange(n), labels=labels)


@pytest.mark.parametrize(("balanced", "title"), [(True, "9 labels"), (False, "9 unbalanced labels")])
def test_every_row_is_what_the_probes_alone_give(balanced, title):
    parts = {"train": features(60, 0), "val": features(30, 1), "test": features(45, 2)}
    figures = Probing(neighbours=3, labels=9, draws=2, seed=4, balanced=balanced).measure("pretrained", parts)
    assert list(figures.scores) == [Case("pretrained", *row, p) for row in ROWS for p in ("knn", "linear", "few")]
    for layers, pooling in ROWS:
        train, val, test = (part.labelled(pooling, layers) for part in parts.values())
        few = few_label_probe(train, test, labels=9, draws=2, val=val, seed=4, balanced=balanced)
        assert [figures.scores[Case("pretrained", layers, pooling, p)] for p in ("knn", "linear", "few")] == [
            Score(percent=knn_accuracy(train, test, k=3)),
            Score(percent=linear_probe(train, test, val=val, seed=4).accuracy),
            Score(percent=few.mean, std=few.std, draws=2),
        ]
    assert figures.titles == {"knn": "3-NN", "linear": "linear", "few": title}
    assert (figures.num_train, figures.num_test) == (60, 45)


def test_without_a_part_to_test_with_a_fifth_is_held_out():
    train = features(60, 0)
    figures = Probing(probes=("knn",), seed=1).measure("pretrained", {"train": train})
    rest, held = hold_out(train.labelled("grid", "0"), seed=1)
    assert (figures.num_train, figures.num_test) == (48, 12) == (len(rest.labels), len(held.labels))
    assert figures.scores[Case("pretrained", "0", "grid", "knn")].percent == knn_accuracy(rest, held)


def test_what_few_samples_do_not_allow_is_left_out_and_said():
    parts = {"train": features(20, 0), "test": features(30, 1)}
    figures = Probing(neighbours=21, labels=100).measure("pretrained", parts)
    assert {case.probe for case in figures.scores} == {"linear"}
    assert len(figures.left_out) == 2, "once, not for each row"
    assert "21-NN: there are only 20" in figures.left_out[0]
    assert "100 labels: there are only 20" in figures.left_out[1]
    assert figures.table().splitlines()[-2:] == [f"left out: {line}" for line in figures.left_out]
    whole = Probing(neighbours=20, labels=20, draws=1).measure("pretrained", parts)
    assert whole.left_out == ()
    assert {case.probe for case in whole.scores} == {"knn", "linear", "few"}


def test_where_no_probe_can_be_run_the_reasons_are_the_error():
    parts = {"train": features(20, 0), "test": features(30, 1)}
    with pytest.raises(ValueError, match=r"21-NN.*100 labels"):
        Probing(probes=("knn", "few"), neighbours=21).measure("pretrained", parts)
    one = {name: evolve(part, labels=torch.zeros_like(part.labels)) for name, part in parts.items()}
    with pytest.raises(ValueError, match="two classes"):
        Probing(probes=("few",)).measure("pretrained", one)


def test_classes_of_one_part_only_are_counted():
    train, test = features(20, 0), features(30, 1)
    single = evolve(train, labels=torch.cat([train.labels[:-1], torch.tensor([7])]))
    figures = Probing(probes=("knn",)).measure("pretrained", {"train": single, "test": test})
    assert figures.left_out == ("1 of 4 classes have no test sample",)
    figures = Probing(probes=("knn",)).measure(
        "pretrained", {"train": train, "test": evolve(test, labels=test.labels + 1)}
    )
    assert figures.left_out[0].startswith("1 of 3 ")
    assert "no training sample" in figures.left_out[1]
    both = figures | evolve(figures, left_out=(*figures.left_out, "more"))
    assert both.left_out == (*figures.left_out, "more")


def test_one_draw_has_no_deviation_and_the_input_no_layers():
    x = features(30, 0)
    raw = Features(values={"input": {"raw": x.values["0"]["mean"]}}, ids=x.ids, labels=x.labels)
    figures = Probing(probes=("few",), labels=6, draws=1).measure("raw", {"train": raw, "test": raw})
    ((case, accuracy),) = figures.scores.items()
    assert case == Case("raw", "-", "-", "few")
    assert accuracy.std is None


@pytest.mark.parametrize(
    ("name", "value"), [("probes", ()), ("neighbours", 0), ("labels", 1), ("draws", 0), ("seed", -1)]
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        Probing(**{name: value})


def test_mean_and_deviation_of_draws():
    assert Score.of([70.0]) == Score(percent=70.0)
    found = Score.of([70.0, 71.0, 75.0])
    assert found.percent == 72.0
    assert found.std == pytest.approx(torch.tensor([70.0, 71.0, 75.0]).std().item())


def test_figures_together_as_a_table_and_as_plain_values():
    one, other = (
        ProbeResults(
            scores={
                Case(name, "all", "mean", "knn"): Score(percent=80.04),
                Case(name, "all", "mean", "few"): Score(percent=70.0, std=1.26),
            },
            titles={"knn": "7-NN", "few": "20 labels"},
            num_train=60,
            num_test=30,
        )
        for name in ("untrained", "pretrained")
    )
    both = one | other
    assert both.to_plain() == {
        name: {"all": {"mean": {"knn": 80.04, "few": {"mean": 70.0, "std": 1.26}}}}
        for name in ("untrained", "pretrained")
    }
    head, *rows, foot = both.table().splitlines()
    assert head.split() == ["features", "layers", "pooling", "7-NN", "20", "labels"]
    assert [row.split() for row in rows] == [
        [name, "all", "mean", "80.0", "70.0", "±1.3"] for name in ("untrained", "pretrained")
    ]
    assert "60" in foot
    assert "30" in foot


def test_features_without_labels_are_refused():
    x = features(30, 0)
    unlabelled = Features(values=x.values, ids=x.ids)
    with pytest.raises(ValueError, match="labels"):
        Probing().measure("pretrained", {"train": unlabelled})
