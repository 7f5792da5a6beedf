"""Leads: their error is that of paired samples and draws, and what it leaves within chance is level."""

import math

import pytest
import torch

from d2v.core.probes.leads import Lead, lead
from d2v.core.probes.results import Score


def of(*rows):
    return Score.of_correct(torch.tensor(rows, dtype=torch.bool))


def test_the_error_of_one_draw_is_that_of_the_samples_on_which_they_differ():
    n, won, lost = 400, 30, 10
    a = torch.arange(n) >= lost
    b = torch.arange(n) < n - won
    found = lead(Score.of_correct(a[None]), Score.of_correct(b[None]), num_test=n)
    assert found.points == pytest.approx(100 * (won - lost) / n)
    variance = ((won + lost) / n - ((won - lost) / n) ** 2) / (n - 1)
    assert found.error == pytest.approx(100 * math.sqrt(variance))
    assert found.standing == "ahead"


def test_equal_answers_are_level_without_error():
    same = of([1, 0, 1, 1])
    assert lead(same, same, num_test=4) == Lead(points=0.0, error=0.0)
    assert lead(same, same, num_test=4).standing == "level"


def test_unpaired_accuracies_have_a_larger_error():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2000, generator=generator) < 0.85
    b = a ^ (torch.rand(2000, generator=generator) < 0.02)
    paired = lead(Score.of_correct(a[None]), Score.of_correct(b[None]), num_test=2000)
    alone = lead(*(Score(percent=100 * one.double().mean().item()) for one in (a, b)), num_test=2000)
    assert alone.points == pytest.approx(paired.points)
    assert 2 * paired.error < alone.error < 1.3


def test_draws_add_their_spread():
    once = lead(of([1, 1, 0, 0] * 50), of([1, 0, 0, 0] * 50), num_test=200)
    a, b = of([1, 1, 0, 0] * 50, [1, 1, 1, 1] * 50), of([1, 0, 0, 0] * 50, [1, 0, 0, 0] * 50)
    several = lead(a, b, num_test=200)
    assert several.error > 5 * once.error
    assert (once.standing, several.standing) == ("ahead", "level")


def test_two_standard_errors_hold_by_chance_in_nineteen_of_twenty():
    """Classifiers that are equally good are rarely called otherwise."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(200):
        hard = torch.rand(500, generator=generator)
        a, b = (torch.rand(500, generator=generator) < 0.6 + 0.3 * hard for _ in range(2))
        found.append(lead(Score.of_correct(a[None]), Score.of_correct(b[None]), num_test=500).standing)
    assert 0.9 < found.count("level") / len(found) < 0.99
