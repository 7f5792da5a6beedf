"""`d2v completion`: shell completion of commands, recipes, keys and values."""

import argparse
import json
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from d2v.core.cli.command import Command, Parser
from d2v.core.files.atomic import write_text
from d2v.core.paths import is_path
from d2v.core.recipes import recipe_names, recipe_values
from d2v.core.recipes.known import known_keys
from d2v.core.recipes.recipe import Run
from d2v.core.recipes.schema import Key

_SHELLS = ("bash", "zsh", "fish")


def write_table(commands: Iterable[Command], path: Path, *, installed: str) -> dict[str, Any]:
    """Write the completion table, see `d2v._completion`.

    Args:
        commands: all commands.
        path: of the file to write; if it cannot be written, nothing is kept.
        installed: identifies the installed packages that the table is built from.

    Returns:
        The table.
    """
    kinds = {name: recipe_values(name)[0] for name in recipe_names()}
    table = {
        "installed": installed,
        "recipes": {name: _words(known_keys(kind, name)) for name, kind in kinds.items()},
        "commands": dict(_described_commands(commands, kinds)),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(table))
    except OSError:  # a read-only home: the table is built again next time
        pass
    return table


def _described_commands(commands: Iterable[Command], kinds: Mapping[str, type[Run]]) -> Iterable[tuple[str, Any]]:
    for command in commands:
        parser = Parser()
        command.add_arguments(parser)
        entry = {"summary": command.summary, **_described(parser)}
        takes: Any = command.takes
        if takes is not None:
            settings = takes.settings
            if any(action.dest == "recipe" for action in parser._actions):
                entry["recipes"] = [name for name, kind in kinds.items() if settings in (None, kind)]
            entry["keys"] = _words(known_keys(settings or Run))
        yield command.name, entry


def _described(parser: Parser) -> dict[str, Any]:
    """Arguments and subcommands of a parser as plain values."""
    found: dict[str, Any] = {"arguments": []}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            found["verbs"] = {
                name: {"summary": helps.get(name, ""), **_described(verb)} for name, verb in action.choices.items()
            }
        elif action.dest not in ("help", "recipe", "overrides"):
            choices = None if action.choices is None else [str(choice) for choice in action.choices]
            one = {"names": action.option_strings or [action.dest], "choices": choices, "nargs": action.nargs}
            words = parser.words.get(action.dest)
            found["arguments"].append(one if words is None else {**one, "words": list(words())})
    return found


def _words(keys: Iterable[Key]) -> dict[str, Any]:
    return {key.name: "path" if is_path(key.type) else list(_choices(key.type)) or None for key in keys}


def _choices(declared: Any) -> Iterable[str]:
    """The words that a value may be, if the type lists them."""
    if get_origin(declared) is Literal:
        yield from map(str, get_args(declared))
    elif declared is bool:
        yield from ("true", "false")
    elif get_origin(declared) in (Union, UnionType):
        for part in get_args(declared):
            if part is not NoneType:
                yield from _choices(part)


def _add_arguments(parser: Parser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=_SHELLS, help=", ".join(_SHELLS))


def _run(arguments: Namespace) -> None:
    """Print the script; the table of keys is built on the first completion, see `d2v.__main__`."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["d2v"], shell=arguments.shell))


COMMAND = Command(
    name="completion",
    summary="print the completion script for bash, zsh or fish",
    details="""TAB completes commands, recipes, keys, allowed words and paths. The lists are built by the first TAB, and
again after a package is installed.""",
    example='eval "$(d2v completion bash)"        # in ~/.bashrc\n'
    'eval "$(d2v completion zsh)"         # in ~/.zshrc, after compinit\n'
    "d2v completion fish | source         # in ~/.config/fish/config.fish",
    add_arguments=_add_arguments,
    run=_run,
)
