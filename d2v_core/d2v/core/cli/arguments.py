"""Arguments of commands and their help: the keys of a settings class, or the parameters of a function.

Names, types and defaults come from classes and signatures, descriptions from docstrings.
"""

import inspect
import re
import textwrap
import types
from argparse import Action, Namespace
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from d2v.core.cli.command import Parser, help_width
from d2v.core.cli.habits import refuse_options
from d2v.core.recipes import parse_overrides
from d2v.core.recipes.known import known_keys
from d2v.core.recipes.recipe import Run
from d2v.core.recipes.schema import REQUIRED, Key, outline, parameters
from d2v.core.recipes.yaml_text import yaml_scalar


class Keys:
    """Arguments `KEY=VALUE`; the help lists the keys.

    Args:
        settings: the class whose fields are the keys; None = any class, and no list in the help.
    """

    def __init__(self, settings: type | None = None) -> None:
        self.settings = settings

    def __call__(self, parser: Parser) -> None:
        """Add the arguments to a parser."""
        parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="dotted keys; text is taken as typed")
        parser.looks.append(self._look)
        settings = self.settings
        if settings is not None:
            parser.completions.append(lambda: parser.prepend(f"keys:\n{keys_text(settings)}"))

    def values(self, arguments: Namespace) -> dict[str, Any]:
        """The given arguments, as keyword arguments of a function of `d2v.core.jobs`."""
        return {"overrides": parse_overrides(arguments.overrides)}

    def known(self, arguments: Sequence[str]) -> list[Key]:
        """The keys that the command accepts, given its arguments."""
        del arguments
        return known_keys(self.settings) if self.settings is not None else []

    def _look(self, arguments: Sequence[str]) -> None:
        refuse_options(arguments, lambda: self.known(arguments))


class RecipeAndKeys(Keys):
    """Arguments `RECIPE KEY=VALUE`; the help lists the top-level keys and refers to `d2v recipe` for the others."""

    def __call__(self, parser: Parser) -> None:
        """Add the arguments to a parser."""
        parser.add_argument("recipe", metavar="RECIPE", help="a name from `d2v list`, or a YAML file")
        super().__call__(parser)
        if self.settings is not None:
            parser.prepend("`d2v recipe RECIPE` prints all keys with their values in the recipe.\n")

    def values(self, arguments: Namespace) -> dict[str, Any]:
        """The given arguments, as keyword arguments of a function of `d2v.core.jobs`."""
        return {"recipe": arguments.recipe, **super().values(arguments)}

    def known(self, arguments: Sequence[str]) -> list[Key]:
        """The keys of the recipe."""
        recipe = next((one for one in arguments if "=" not in one and not one.startswith("-")), None)
        return known_keys(self.settings or Run, recipe)


def keys_text(settings: type) -> str:
    """A paragraph for each key, required keys first; a section is one line, `data.*`."""
    keys = sorted(outline(settings), key=lambda key: key.value is not REQUIRED)
    column = 4 + max(len(key.name) for key in keys)
    return "".join(_paragraph(key.name, _meaning(key), column) for key in keys)


def _meaning(key: Key) -> str:
    if key.section:
        return key.comment
    stated = "required" if key.value is REQUIRED else f"default: {yaml_scalar(key.value)}"
    return f"{key.comment} ({stated})".strip()


def _paragraph(name: str, text: str, column: int) -> str:
    head = f"  {name}".ljust(column)
    return textwrap.fill(text, help_width(), initial_indent=head, subsequent_indent=" " * column) + "\n"


class Options:
    """The parameters of a function as arguments of a command.

    A parameter `runs: Sequence[...]` becomes positional arguments, every other one an option `--name VALUE`. An option
    without a default is required. Help comes from the docstring.

    Args:
        call: a function, or a class with a `__call__` (for example a protocol) for a function that is found later.
        leave_out: parameters that are not command-line arguments.
        positional: parameters without a default that become single positional arguments.
        words: what completion offers for a parameter, by its name; see `Parser`.

    Raises:
        TypeError: if the type of a parameter cannot be typed on a command line; leave it out.

    >>> def draw(runs: Sequence[str], *, images: int = 8, out: str | None = None) -> None: ...
    >>> options, parser = Options(draw), Parser()
    >>> options(parser)
    >>> options.values(parser.parse_args(["a", "b", "--images", "3"]))
    {'runs': ['a', 'b'], 'images': 3, 'out': None}
    """

    def __init__(
        self,
        call: Callable[..., Any],
        *,
        leave_out: Collection[str] = (),
        positional: Collection[str] = (),
        words: Mapping[str, Callable[[], Iterable[str]]] | None = None,
    ) -> None:
        function: Any = call.__call__ if isinstance(call, type) else call
        hints = get_type_hints(function)
        self._positional = positional
        self._words = dict(words or {})
        self._docstrings = [inspect.getdoc(function), inspect.getdoc(call)]
        self.parameters = {
            parameter.name: (parameter, hints[parameter.name])
            for parameter in inspect.signature(function).parameters.values()
            if parameter.name not in ("self", *leave_out)
        }

    def __call__(self, parser: Parser) -> None:
        """Add the arguments to a parser."""
        actions = {
            name: _add(parser, one, hint, name in self._positional) for name, (one, hint) in self.parameters.items()
        }

        def complete() -> None:
            meanings: dict[str, str] = {}
            for docstring in self._docstrings:
                meanings = parameters(docstring) | meanings
            for name, action in actions.items():
                action.help = _option_help(meanings.get(name, ""), action)

        parser.completions.append(complete)
        parser.words |= self._words

    def values(self, arguments: Namespace) -> dict[str, Any]:
        """The given arguments, as keyword arguments of the function."""
        return {name: getattr(arguments, name) for name in self.parameters}


def _add(parser: Parser, parameter: inspect.Parameter, hint: Any, positional: bool) -> Action:
    name, required = parameter.name, parameter.default is inspect.Parameter.empty
    if inspect.isclass(origin := get_origin(hint)) and issubclass(origin, Sequence):
        (item, *_) = get_args(hint)
        return parser.add_argument(name, metavar=name.upper(), nargs="+", **_typed(name, item))
    if positional:
        return parser.add_argument(name, metavar=name.upper(), **_typed(name, hint))
    given = {"required": True} if required else {"default": parameter.default}
    return parser.add_argument(f"--{name.replace('_', '-')}", metavar=name.upper(), **given, **_typed(name, hint))


def _typed(name: str, hint: Any) -> dict[str, Any]:
    """Options of argparse for a value of this type."""
    parts = set(_parts(hint)) - {types.NoneType}
    if all(get_origin(part) is Literal for part in parts):
        return {"choices": [choice for part in parts for choice in get_args(part)]}
    for kind in (str, float, int, Path):  # a path that may be given as text is text
        if kind in parts and bool not in parts:
            return {"type": kind}
    raise TypeError(f"{name}: {hint} cannot be typed on a command line; leave it out")


def _parts(hint: Any) -> Iterator[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from _parts(part)
    else:
        yield hint


def _option_help(meaning: str, action: Action) -> str:
    text = meaning.rstrip(".").replace("None = ", "default: ")
    stated = "" if action.default is None else f" (default: {action.default})"
    if action.required and action.option_strings:
        stated = " (required)"
    return f"{text}{stated}".strip().replace("%", "%%")  # argparse formats a single %


def summary_and_details(call: Callable[..., Any]) -> tuple[str, str]:
    """Summary and details of a command, from the docstring of its function: the first line, and the text before `Args`.

    >>> def look(at: str) -> None:
    ...     '''Look at something.
    ...
    ...     It takes a while.
    ...
    ...     Args:
    ...         at: what.
    ...     '''
    >>> summary_and_details(look)
    ('look at something', 'It takes a while.')
    """
    first, _, rest = (inspect.getdoc(call) or call.__name__).partition("\n\n")
    details = re.split(r"^(?:Args|Returns|Raises):$|^>>>", rest, maxsplit=1, flags=re.M)[0].strip()
    first = " ".join(first.split()).rstrip(".")
    return first[0].lower() + first[1:], details
