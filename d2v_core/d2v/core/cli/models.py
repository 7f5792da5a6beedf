"""`d2v models`: published models that are loaded by name."""

from argparse import Namespace
from contextlib import suppress
from functools import partial

from d2v.core.cli.command import Command, Parser
from d2v.core.files.catalogue import PublishedModel, published_model, published_models
from d2v.core.files.model_cache import cached, is_cached
from d2v.core.registry import PluginError

# Columns of the list, each a filter too.
_COLUMNS = ("name", "modality", "size", "data", "fine-tuning", "licence")


def run(arguments: Namespace) -> None:
    """Print all that is known of a model, or a table of the models that the filters leave."""
    if arguments.name is not None:
        print("\n".join(f"{name:<12} {text}" for name, text in _facts(published_model(arguments.name)).items()))
        return
    wanted = {column: getattr(arguments, column.replace("-", "_")) for column in _COLUMNS[1:]}
    rows = [dict(zip(_COLUMNS, _columns(model), strict=True)) for model in published_models().values()]
    kept = [
        list(row.values())
        for row in rows
        if all(text is None or text.lower() in row[column].lower() for column, text in wanted.items())
    ]
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *kept, strict=True)]
    for line in (list(_COLUMNS), *kept):
        print("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())


def _columns(model: PublishedModel) -> tuple[str, ...]:
    return model.name, model.modality, model.size, model.data, model.fine_tuning, model.licence


def _facts(model: PublishedModel) -> dict[str, str]:
    state = "" if is_cached(model) else " (not downloaded)"
    return {
        **dict(zip(_COLUMNS, _columns(model), strict=True)),
        "address": model.address,
        "cache": f"{cached(model)}{state}",
        "load": f'd2v.core.load("{model.name}"), or model={model.name} in a command',
    }


def _texts(column: int) -> list[str]:
    """The different texts of a column; none if a catalogue is broken, which the command itself reports."""
    with suppress(PluginError):
        return sorted({_columns(model)[column] for model in published_models().values()})
    return []


def _add_arguments(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="show all that is known of this model")
    for column in _COLUMNS[1:]:
        parser.add_argument(f"--{column}", metavar="TEXT", help=f"only models with this text in the column {column}")
    parser.words |= {column.replace("-", "_"): partial(_texts, number) for number, column in enumerate(_COLUMNS)}


COMMAND = Command(
    name="models",
    summary="list the published models that are loaded by name",
    details="""A command or d2v.core.load that gets one of these names downloads the model once into the cache folder.
D2V_CACHE sets the folder, and D2V_OFFLINE=1 forbids downloads.""",
    example="d2v models --modality audio --fine-tuning none\nd2v models data2vec2/base_libri\n"
    "d2v probe model=data2vec2/base_imagenet data.path=photos",
    add_arguments=_add_arguments,
    run=run,
)
