"""`d2v list`: the installed modalities, recipes and tasks."""

from argparse import Namespace

from d2v.core.cli.command import Command
from d2v.core.modality import modalities
from d2v.core.recipes import recipe_names, recipe_text
from d2v.core.registry import MissingExtraError


def run(arguments: Namespace) -> None:
    """Print modalities, recipes and tasks; a broken plug-in is listed with its error."""
    del arguments
    broken = modalities.broken()
    print("modalities")
    for name in modalities.names():
        print(f"  {name:<18} {broken[name] if name in broken else _state(name)}")
    print("\nrecipes")
    for name in recipe_names():
        print(f"  {name:<22} {_summary(recipe_text(name))}")
    print("\ntasks")
    for name in modalities.names():
        if name not in broken:
            for task, config in modalities.load(name).tasks.items():
                print(f"  {f'{name}/{task}':<22} {(config.__doc__ or '').splitlines()[0].rstrip('.')}")


def _state(name: str) -> str:
    record = modalities.load(name)
    try:
        record.require_extra()
    except MissingExtraError as error:
        return f"{record.description} ({error})"
    return record.description


def _summary(text: str) -> str:
    first = text.splitlines()[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


COMMAND = Command(
    name="list",
    summary="list the installed modalities, recipes and tasks",
    example="d2v list",
    add_arguments=lambda parser: None,
    run=run,
)
