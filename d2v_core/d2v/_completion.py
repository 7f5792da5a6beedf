"""Shell completion by argcomplete, from a table of commands and keys in the user's cache folder.

This module imports `d2v.core`, and with it PyTorch, only if the table is missing or older than the installed packages.
"""

import hashlib
import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import d2v
from d2v._cache import cache_folder


def complete() -> None:
    """Answer the shell's request, and end the process."""
    import argcomplete

    argcomplete.autocomplete(_parser(table()), always_complete_options=False)


def table() -> dict[str, Any]:
    """Return commands, recipes and keys; the table is rebuilt if packages or files of d2v have changed."""
    path, stamp = table_file(), installed()
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        if found.get("installed") == stamp:
            return found
    except (OSError, ValueError, AttributeError):
        pass
    from d2v.core.cli.completion import write_table
    from d2v.core.cli.entry import COMMANDS

    return write_table(COMMANDS, path, installed=stamp)


def table_file() -> Path:
    """Return the path of the table."""
    return cache_folder() / "completion.json"


def installed() -> str:
    """Return a hash that changes with the installed packages and with the files of d2v."""
    marks: list[object] = [sys.version, sys.prefix]
    here = os.path.realpath(".")  # the working directory changes all the time
    for folder in sorted({os.path.realpath(one or ".") for one in sys.path} - {here}):
        try:
            if any(name.endswith((".dist-info", ".egg-info")) for name in os.listdir(folder)):  # noqa: PTH208 - for speed
                marks += [folder, os.stat(folder).st_mtime_ns]  # noqa: PTH116 - for speed
        except OSError:  # a zip archive, or missing
            continue
    newest = [0, 0]
    for root in d2v.__path__:
        for folder, _, names in os.walk(root):
            for name in names:
                if name.endswith((".py", ".yaml", ".toml")):
                    newest = [newest[0] + 1, max(newest[1], os.stat(f"{folder}/{name}").st_mtime_ns)]  # noqa: PTH116 - speed
    return hashlib.sha256(repr([*marks, *d2v.__path__, newest]).encode()).hexdigest()


def _parser(known: dict[str, Any]) -> ArgumentParser:
    """Return the parts of the parser of `d2v` that completion needs."""
    parser = ArgumentParser(prog="d2v")
    parser.add_argument("-V", "--version", action="store_true")
    commands = parser.add_subparsers()
    for name, command in known["commands"].items():
        _fill(commands.add_parser(name, help=command["summary"]), command, known)
    return parser


def _fill(parser: ArgumentParser, command: dict[str, Any], known: dict[str, Any]) -> None:
    verbs = command.get("verbs")
    if verbs is not None:
        below = parser.add_subparsers()
        for name, verb in verbs.items():
            _fill(below.add_parser(name, help=verb["summary"]), verb, known)
    for option in command.get("arguments", ()):
        names, settings = option["names"], {key: option[key] for key in ("choices", "nargs") if option.get(key)}
        _completed(parser.add_argument(*names, **settings), _offer(option.get("words")))
    if "recipes" in command:
        recipes = command["recipes"]
        _completed(parser.add_argument("recipe"), lambda prefix, **_: [*recipes, *files(prefix, ".yaml", ".yml")])
    if "keys" in command:
        own = command["keys"]

        def complete_key(prefix: str, parsed_args: Namespace, **_: object) -> list[str]:
            given = {argument.partition("=")[0] for argument in getattr(parsed_args, "overrides", None) or ()}
            keys = known["recipes"].get(getattr(parsed_args, "recipe", None), own)
            return list(arguments(prefix, {name: values for name, values in keys.items() if name not in given}))

        _completed(parser.add_argument("overrides", nargs="*"), complete_key)


def _offer(words: list[str] | None) -> Callable[..., list[str]]:
    """Complete one of these words; None = a path."""
    if words is None:
        return lambda prefix, **_: list(files(prefix))
    return lambda prefix, **_: [word for word in words if word.startswith(prefix)]


def _completed(action: Any, completer: Callable[..., list[str]]) -> None:
    if action.choices is None and action.nargs != 0:
        action.completer = completer


def arguments(prefix: str, keys: dict[str, Any]) -> Iterator[str]:
    """Complete `KEY=VALUE`: keys section by section, then the values of the key.

    Args:
        prefix: text typed so far.
        keys: key to its allowed words, "path", or None = any other value.

    >>> keys = {"out": "path", "optim.lr": None, "optim.eps": None, "weights": ["student", "teacher"]}
    >>> list(arguments("", keys)), list(arguments("op", keys)), list(arguments("weights=t", keys))
    (['out=', 'optim.', 'weights='], ['optim.lr=', 'optim.eps='], ['weights=teacher'])
    """
    key, equals, text = prefix.partition("=")
    if equals:
        values = keys.get(key, keys.get(f"{key}.path"))
        found = files(text) if values == "path" else (one for one in values or () if one.startswith(text))
        yield from (f"{key}={value}" for value in found)
        return
    below = prefix
    while True:
        start = below.rfind(".") + 1
        groups = dict.fromkeys(
            name[: end + 1] if (end := name.find(".", start)) >= 0 else f"{name}="
            for name in keys
            if name.startswith(below)
        )
        only = next(iter(groups), "")
        if len(groups) != 1 or only.endswith("="):
            yield from groups
            return
        below = only


def files(prefix: str, *endings: str) -> Iterable[str]:
    """Complete a path with files and folders; folders end in a slash.

    Args:
        prefix: text typed so far.
        endings: allowed endings of files; none = any.
    """
    folder, _, name = prefix.rpartition("/")
    folder += "/" if "/" in prefix else ""
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as found:  # noqa: PTH111 - a Path would drop ./
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(name) and (name or not entry.name.startswith(".")):
            if entry.is_dir():
                yield f"{folder}{entry.name}/"
            elif not endings or entry.name.endswith(endings):
                yield f"{folder}{entry.name}"
