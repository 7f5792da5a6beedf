"""Recipes: YAML files that fill configuration classes, dotted overrides, and errors that name the key."""

from d2v.core.recipes.lookup import (
    checked_values,
    read_recipe,
    recipe_names,
    recipe_text,
    recipe_value,
    recipe_values,
    resolve,
    resolved_text,
    shared_text,
)
from d2v.core.recipes.overrides import parse_overrides
from d2v.core.recipes.printing import as_yaml
from d2v.core.recipes.recipe import FinetuneRecipe, PretrainRecipe, without_path
from d2v.core.recipes.schedules import ScheduleConfig
from d2v.core.recipes.sections import (
    FinetuneOptimConfig,
    FreezeConfig,
    MonitorConfig,
    OptimConfig,
    TrainConfig,
    ValidationConfig,
)

__all__ = [
    "FinetuneOptimConfig",
    "FinetuneRecipe",
    "FreezeConfig",
    "MonitorConfig",
    "OptimConfig",
    "PretrainRecipe",
    "ScheduleConfig",
    "TrainConfig",
    "ValidationConfig",
    "as_yaml",
    "checked_values",
    "parse_overrides",
    "read_recipe",
    "recipe_names",
    "recipe_text",
    "recipe_value",
    "recipe_values",
    "resolve",
    "resolved_text",
    "shared_text",
    "without_path",
]
