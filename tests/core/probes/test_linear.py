"""Logistic regression against the conditions of its minimum, and how its strength is chosen."""

import math

import pytest
import torch
from torch.nn import functional as F

from d2v.core.probes import STRENGTHS, Labelled, draw_labels, few_label_probe, fit_linear, linear_probe

C = 4


def clusters(n, *, d=6, apart=1.0, classes=C, seed=0):
    """Normal clouds around fixed centres, with scales and offsets that standardisation has to take away."""
    generator = torch.Generator().manual_seed(seed)
    centres = apart * torch.randn(classes, d, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(n) % classes
    x = centres[labels] + torch.randn(n, d, generator=generator)
    return Labelled(features=x * torch.logspace(-2, 2, d) + 10, labels=labels * 5 - 3)


def objective(classifier, train, strength):
    """Objective and its gradients at a classifier, from the formula."""
    weight, bias = classifier.weight.clone().requires_grad_(), classifier.bias.clone().requires_grad_()
    x = train.features.double()
    x = (x - x.mean(0)) / x.std(0, correction=0)
    target = torch.tensor([classifier.classes.tolist().index(label) for label in train.labels.tolist()])
    logits = x @ weight + bias
    loss = (logits.logsumexp(1) - logits[torch.arange(len(x)), target]).mean() + strength * (weight**2).sum()
    return loss.item(), torch.autograd.grad(loss, [weight, bias])


@pytest.mark.parametrize("strength", [1.0, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("apart", [0.0, 1.0, 10.0], ids=["random", "overlapping", "separable"])
def test_the_gradient_vanishes_at_the_minimum(strength, apart):
    train = clusters(200, apart=apart)
    loss, gradients = objective(fit_linear(train, strength=strength), train, strength)
    assert loss < math.log(C)  # below that of zero weights, where nothing was learnt
    for gradient in gradients:
        assert gradient.abs().max() < 1e-5


def test_equals_gradient_descent():
    train, strength = clusters(80), 0.05
    x = train.features.double()
    x = (x - x.mean(0)) / x.std(0, correction=0)
    y = (train.labels + 3) // 5
    weight, bias = torch.zeros(6, C, dtype=torch.float64), torch.zeros(C, dtype=torch.float64)
    for _ in range(3000):
        error = ((x @ weight + bias).softmax(1) - F.one_hot(y, C)) / len(x)
        weight, bias = weight - 0.3 * (x.T @ error + 2 * strength * weight), bias - 0.3 * error.sum(0)
    found = fit_linear(train, strength=strength)
    torch.testing.assert_close(found.weight, weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.bias, bias, atol=1e-4, rtol=1e-4)
    probabilities = x @ weight + bias
    assert torch.equal(found.predict(train.features), probabilities.argmax(1) * 5 - 3)


def test_the_bias_is_free_of_the_penalty():
    """Under a penalty that leaves no weights, the bias alone gives the classes' fractions."""
    labels = torch.tensor([0] * 30 + [1] * 10)
    found = fit_linear(Labelled(features=torch.randn(40, 3), labels=labels), strength=1e4)
    assert found.weight.abs().max() < 1e-3
    torch.testing.assert_close(found.bias.softmax(0), torch.tensor([0.75, 0.25]).double(), atol=1e-4, rtol=0)


def test_a_start_changes_nothing_and_stays_what_it_was():
    train = clusters(200)
    start = fit_linear(train, strength=0.1)
    before = start.weight.clone()
    warm, cold = fit_linear(train, strength=1e-3, start=start), fit_linear(train, strength=1e-3)
    torch.testing.assert_close(warm.weight, cold.weight, atol=1e-3, rtol=1e-3)
    assert torch.equal(start.weight, before)
    again = fit_linear(train, strength=1e-3)
    assert torch.equal(again.weight, cold.weight)


def test_it_learns_under_no_grad_and_leaves_no_graph():
    with torch.no_grad():
        found = fit_linear(clusters(40, apart=10), strength=0.1)
    assert found.weight.abs().max() > 0.1
    assert not found.weight.requires_grad
    assert not found.bias.requires_grad


def test_separable_clouds_are_distinguished_and_noise_is_not():
    apart, same = (linear_probe(clusters(400, apart=a), clusters(400, apart=a, seed=1)) for a in (10.0, 0.0))
    assert apart.accuracy == 100
    assert same.accuracy < 40


# --- the choice of the strength ---------------------------------------------------------------------------------------


def accuracy_of(train, judged, strength):
    found = fit_linear(train, strength=strength).predict(judged.features)
    return 100 * (found == judged.labels).sum().item() / len(judged.labels)


def test_the_strength_is_the_best_on_the_validation_set():
    train, val, test = clusters(40, d=30, seed=1), clusters(300, d=30, seed=2), clusters(300, d=30, seed=3)
    result = linear_probe(train, test, val=val)
    expected = {strength: accuracy_of(train, val, strength) for strength in STRENGTHS}
    assert list(result.chosen_among) == sorted(STRENGTHS, reverse=True)
    # Starting from the strength before, the minimum is met to a tolerance: a sample at the border may change sides.
    assert result.chosen_among == pytest.approx(expected, abs=0.7)
    assert len(set(expected.values())) > 1
    assert result.chosen_among[result.strength] == max(result.chosen_among.values())
    assert result.accuracy == pytest.approx(accuracy_of(train, test, result.strength), abs=0.7)


def test_of_equally_good_strengths_the_strongest_is_taken():
    train = clusters(80, apart=10)
    assert linear_probe(train, train, val=train, strengths=[1e-3, 1e-1, 1e-2]).strength == 1e-1


def test_the_validation_set_decides_not_the_test_set():
    train = clusters(200)
    wrong = Labelled(features=train.features, labels=train.labels.roll(1))
    result = linear_probe(train, wrong, val=train)
    assert result.chosen_among[result.strength] > 60
    assert result.accuracy < 40


def spied(monkeypatch):
    """Records (training set, strength) of every fit, and where it starts."""
    from d2v.core.probes import linear

    fits = []

    class Path(linear._Path):
        def __init__(self, train):
            super().__init__(train)
            self.train, self.last = train, None

        def fit(self, strength, *, start=None, **ending):
            assert start is self.last, "each strength starts where the one before ended"
            fits.append((self.train, strength))
            self.last = super().fit(strength, start=start, **ending)
            return self.last

    monkeypatch.setattr(linear, "_Path", Path)
    return fits


def rows(samples):
    return {tuple(row) for row in samples.features.tolist()}


def test_without_a_validation_set_a_stratified_fifth_is_held_out_and_all_is_fitted_at_the_end(monkeypatch):
    train = clusters(100)
    sizes = {-3: 25, 2: 11, 7: 25, 12: 4}
    keep = torch.cat([(train.labels == label).nonzero()[:size, 0] for label, size in sizes.items()])
    train = train.take(keep)
    fits = spied(monkeypatch)
    result = linear_probe(train, train)
    parts, (last, strength) = fits[:-1], fits[-1]
    assert [one for _, one in parts] == list(STRENGTHS)
    for part, _ in parts:
        assert rows(part) == rows(parts[0][0]) < rows(train)
    counts = {label: int((parts[0][0].labels == label).sum()) for label in sizes}
    assert counts == {-3: 20, 2: 9, 7: 20, 12: 4}
    assert last is train
    assert strength == result.strength == max(result.chosen_among, key=result.chosen_among.__getitem__)


def test_the_search_ends_where_weaker_strengths_are_clearly_worse():
    generator = torch.Generator().manual_seed(0)

    def noisy(n: int) -> Labelled:
        x = torch.randn(n, 60, generator=generator)
        return Labelled(features=x, labels=(x[:, 0] + torch.randn(n, generator=generator) > 0).long())

    found = linear_probe(noisy(100), noisy(500), val=noisy(3000)).chosen_among
    *before, last = found.values()
    assert 2 <= len(found) < len(STRENGTHS)
    assert last < max(before) - 1
    assert all(one >= max(before[: place + 1]) - 1 for place, one in enumerate(before))


def test_what_is_held_out_depends_on_the_seed_alone(monkeypatch):
    train, fits = clusters(100), spied(monkeypatch)
    for seed in (0, 0, 1):
        linear_probe(train, train, strengths=[0.1], seed=seed)
    first, again, other = (rows(part) for part, _ in fits[::2])
    assert first == again != other


def test_with_a_validation_set_all_training_samples_are_fitted_once(monkeypatch):
    train, fits = clusters(100), spied(monkeypatch)
    linear_probe(train, train, val=train, strengths=[0.1, 0.2])
    assert [(part is train, strength) for part, strength in fits] == [(True, 0.2), (True, 0.1)]


@pytest.mark.parametrize(("n", "chosen"), [(16, False), (19, False), (20, True)])
def test_too_few_samples_take_the_fixed_strength(n, chosen):
    result = linear_probe(clusters(n), clusters(40, seed=1), strengths=[1e-3])
    assert (result.strength, len(result.chosen_among)) == ((1e-3, 1) if chosen else (1e-2, 0))


def test_classes_of_the_test_set_that_were_never_seen_are_mistakes():
    train, test = clusters(80, apart=10), clusters(80, apart=10, seed=1)
    test = Labelled(features=test.features, labels=torch.where(test.labels == 2, 77, test.labels))
    assert linear_probe(train, test).accuracy == 75


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strengths": []}, "no strengths"),
        ({"strengths": [0.1, -1.0]}, "strength.*-1.0"),
        ({"val": Labelled(features=torch.zeros(4, 2), labels=torch.arange(4))}, "width 2 do not fit"),
        ({"train": Labelled(features=torch.randn(4, 6), labels=torch.ones(4).long())}, "at least two classes"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    options = {"train": clusters(40), "test": clusters(40), **change}
    with pytest.raises(ValueError, match=message):
        linear_probe(options.pop("train"), options.pop("test"), **options)


# --- few labels -------------------------------------------------------------------------------------------------------


def drawn(sizes, labels, **options):
    """Number of drawn samples by class."""
    y = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    samples = Labelled(features=torch.zeros(len(y), 1), labels=y)
    index = draw_labels(samples, labels, **{"seed": 0, "draw": 0, **options})
    assert len(set(index.tolist())) == labels
    return torch.bincount(y[index], minlength=len(sizes)).tolist()


@pytest.mark.parametrize(
    ("sizes", "labels", "expected"),
    [
        ([9, 9, 9], 6, [2, 2, 2]),
        ([9, 9, 9], 8, [2, 3, 3]),
        ([1, 9, 9], 7, [1, 3, 3]),
        ([1, 2, 9], 12, [1, 2, 9]),
        ([9, 9, 9], 2, [0, 1, 1]),
    ],
)
def test_classes_are_as_balanced_as_their_sizes_allow(sizes, labels, expected):
    for draw in range(8):
        assert sorted(drawn(sizes, labels, draw=draw)) == expected


def test_which_classes_and_samples_come_first_is_drawn():
    assert len({tuple(drawn([9, 9, 9], 4, draw=draw)) for draw in range(20)}) == 3
    samples = clusters(100)
    draws = [draw_labels(samples, 20, seed=0, draw=draw).tolist() for draw in range(2)]
    assert draw_labels(samples, 20, seed=0, draw=0).tolist() == draws[0]
    assert draw_labels(samples, 20, seed=1, draw=0).tolist() != draws[0] != draws[1]
    assert draw_labels(samples, 12, seed=0, draw=0).tolist() == draws[0][:12]
    firsts = {draw_labels(samples, 20, seed=0, draw=draw)[0].item() for draw in range(40)}
    assert len(firsts) > 20


def test_unbalanced_draws_have_the_classes_of_all_samples():
    counts = torch.tensor([drawn([900, 90, 10], 100, draw=draw, balanced=False) for draw in range(20)])
    assert (counts.double().mean(0) - torch.tensor([90.0, 9.0, 1.0])).abs().max() < 3
    assert len(set(map(tuple, counts.tolist()))) > 5
    samples = clusters(100)
    some, more = (draw_labels(samples, n, seed=0, draw=0, balanced=False).tolist() for n in (12, 20))
    assert more[:12] == some


def test_each_draw_is_a_linear_probe_of_its_samples():
    train, test, val = clusters(200), clusters(200, seed=1), clusters(100, seed=2)
    for judge in (None, val):
        result = few_label_probe(train, test, labels=40, draws=3, val=judge, seed=7)
        for draw in range(3):
            part = train.take(draw_labels(train, 40, seed=7, draw=draw))
            alone = linear_probe(part, test, val=judge, seed=7)
            assert (result.accuracies[draw], result.strengths[draw]) == (alone.accuracy, alone.strength)
    assert len(set(result.accuracies)) > 1
    assert result.mean == pytest.approx(torch.tensor(result.accuracies).double().mean().item())
    assert result.std == pytest.approx(torch.tensor(result.accuracies).double().std().item())


def test_more_labels_help():
    train, test = clusters(400, d=20), clusters(400, d=20, seed=1)
    few, many = (few_label_probe(train, test, labels=labels, draws=3) for labels in (4, 200))
    assert few.strengths == (1e-2,) * 3
    assert few_label_probe(train, test, labels=4, draws=1).std == 0
    assert 25 < few.mean < many.mean - 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": 1}, "labels=1 .*40"),
        ({"labels": 41}, "labels=41.*40"),
        ({"labels": 8, "draws": 0}, "draws.*0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        few_label_probe(clusters(40), clusters(40), **options)


def test_few_labels_of_one_class_are_refused():
    with pytest.raises(ValueError, match="at least two classes"):
        few_label_probe(Labelled(features=torch.zeros(4, 1), labels=torch.zeros(4).long()), clusters(4, d=1), labels=2)
