"""The recipes of GLUE hold the published numbers, for both generations, and build."""

from typing import Any

import pytest

from d2v.core.recipes import FinetuneRecipe, read_recipe, recipe_names
from d2v.core.recipes.schedules import PolynomialConfig
from d2v.text import SentenceDataConfig, TextClassification, TextRegression

GIVEN = {"data.path": "glue", "model": "run", "out": "out"}
# As published: batch, updates, warm-up; learning rate and metric of 2.0; learning rate and metric of 1.0.
TABLE: dict[str, tuple[int, int, int, float, str, float, str]] = {
    "cola": (16, 5336, 320, 2e-5, "mcc", 1e-5, "accuracy"),
    "mnli": (32, 123_873, 7432, 2e-5, "accuracy", 1e-5, "accuracy"),
    "mrpc": (16, 2296, 137, 2e-5, "acc_and_f1", 1e-5, "accuracy"),
    "qnli": (32, 33_112, 1986, 2e-5, "accuracy", 1e-5, "accuracy"),
    "qqp": (32, 113_272, 28_318, 2e-5, "acc_and_f1", 1e-5, "accuracy"),
    "rte": (16, 2036, 122, 2e-5, "accuracy", 2e-5, "accuracy"),
    "sst_2": (32, 20_935, 1256, 2e-5, "accuracy", 1e-5, "accuracy"),
    "sts_b": (16, 3598, 214, 4e-5, "pearson_and_spearman", 2e-5, "loss"),
}
METRICS = {"loss": "mse"}  # the loss of regression, mean over the texts, on the scale of the labels


def read(name: str, **more: Any) -> FinetuneRecipe:
    return read_recipe(f"text/{name}", {**GIVEN, **more}, FinetuneRecipe)


def recipe_of(task: str, former: bool) -> FinetuneRecipe:
    return read(f"{'v1-' if former else ''}glue-{task.replace('_', '-')}")


@pytest.mark.parametrize("former", [False, True], ids=["2.0", "1.0"])
@pytest.mark.parametrize("name", TABLE)
def test_published_numbers(name: str, former: bool) -> None:
    recipe, (batch, steps, warmup, lr, metric, former_lr, former_metric) = recipe_of(name, former), TABLE[name]
    task, data, schedule = recipe.task, recipe.data, recipe.optim.schedule
    assert isinstance(data, SentenceDataConfig)
    assert isinstance(schedule, PolynomialConfig)
    assert (recipe.train.batch_size, recipe.train.max_steps, schedule.warmup) == (batch, steps, warmup)
    assert recipe.optim.lr == (former_lr if former else lr)
    wanted = former_metric if former else metric
    assert (recipe.validation.best or task.best) == METRICS.get(wanted, wanted)
    assert isinstance(task, TextRegression if name == "sts_b" else TextClassification)
    if isinstance(task, TextClassification):
        assert recipe.validation.best in (None, "accuracy", *task.metrics), "the metric is computed"
        assert task.positive == ("1" if name in ("mrpc", "qqp") else None)
    assert (data.glue, data.max_tokens, data.cut, data.num_buckets) == (name, 4400, False, 0)
    assert 8 <= steps / recipe.validation.every <= 12, "about once an epoch of ten"


@pytest.mark.parametrize("former", [False, True], ids=["2.0", "1.0"])
@pytest.mark.parametrize("name", TABLE)
def test_what_all_have_in_common(name: str, former: bool) -> None:
    recipe = recipe_of(name, former)
    optim, task, schedule = recipe.optim, recipe.task, recipe.optim.schedule
    assert isinstance(task, TextClassification | TextRegression)
    assert isinstance(schedule, PolynomialConfig)
    assert (optim.betas, optim.eps, optim.weight_decay, optim.decay, optim.clip) == ((0.9, 0.98), 1e-6, 0.1, "all", 0)
    assert (schedule.power, schedule.end_lr) == (1.0, 0.0)
    assert (optim.layer_decay, recipe.freeze.updates, recipe.train.accumulate) == (1.0, 0, 1)
    assert recipe.train.max_epochs == 10
    assert task.dropout == 0.0
    dropouts = (0.1, 0.1) if former else (None, None)
    assert (task.encoder_dropout, task.attention_dropout) == dropouts
    assert task.init == ("normal" if former else "default")
    if isinstance(task, TextRegression):
        assert task.label_scale == 5.0


def test_there_is_a_recipe_for_each_task() -> None:
    tasks = {name.replace("_", "-") for name in TABLE}
    expected = {f"text/{before}glue-{task}" for before in ("", "v1-") for task in tasks} | {"text/glue"}
    assert {name for name in recipe_names() if "glue" in name} == expected


@pytest.mark.parametrize("name", ["classification", "regression"])
def test_recipes_for_other_texts(name: str) -> None:
    recipe = read(name)
    assert isinstance(recipe.data, SentenceDataConfig)
    assert recipe.data.glue is None
    assert recipe.data.cut


@pytest.mark.parametrize("steps", [100, 1000])
def test_shorter_runs(steps: int) -> None:
    recipe = read("glue-cola", **{"train.max_steps": steps})
    assert isinstance(recipe.optim.schedule, PolynomialConfig)
    assert recipe.optim.schedule.warmup == 320 * steps // 5336
