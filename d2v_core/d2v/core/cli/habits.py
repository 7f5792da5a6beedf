"""Commands and options of other programs that users type by habit, with hints to the right ones."""

from collections.abc import Callable, Iterable, Sequence
from typing import get_args

from d2v.core.files import ConfigError
from d2v.core.recipes.hints import meant_key
from d2v.core.recipes.schema import Key
from d2v.core.suggestions import nearest

_LETTERS = {"o": "out", "m": "model", "d": "data", "s": "seed", "b": "batch_size", "e": "epochs", "w": "workers"}
_COMMANDS = {
    "train fit run": "d2v pretrain or d2v finetune",
    "fine-tune fine_tune ft": "d2v finetune",
    "eval test validate score measure benchmark": "d2v evaluate (d2v probe for a model that is only pretrained)",
    "embed features encode embeddings export": "d2v extract",
    "infer inference classify predictions": "d2v predict",
    "knn linear linear-probe": "d2v probe",
    "config show print recipes-show": "d2v recipe",
    "ls recipes modalities": "d2v list",
    "hub zoo weights checkpoints": "d2v models",
    "info env check diagnose": "d2v doctor",
    "demo start init tour": "d2v quickstart",
    "visualize visualise viz curves draw": "d2v plot",
    "dataset datasets download prepare": "d2v data",
    "resume continue": "resume=true with d2v pretrain or d2v finetune, and the same out=",
    "import export-model": "d2v convert; other commands read published checkpoints as they are, with model=FILE",
    "sweep search tune": "a shell loop, with a different out= for each run",
    "help": "d2v --help, or d2v COMMAND --help",
    "version": "d2v --version",
    "completions complete autocomplete": "d2v completion",
}

_ORIGINAL_OPTIONS = {
    "config_name": "the name of the recipe comes first, as in `d2v pretrain vision/base`",
    "config_dir": "the path of a recipe file comes first, as in `d2v pretrain mine.yaml`",
    "multirun": "`d2v finetune` compares values that are separated by commas, as in optim.lr=1e-5,2e-5",
}


def check_command(arguments: Sequence[str], known: Iterable[str]) -> None:
    """Refuse a command that does not exist, with the likely one.

    Args:
        arguments: of `d2v`.
        known: names of commands.

    Raises:
        ConfigError: if the first argument is a word but not a command.

    >>> check_command(["train", "vision/small"], ["pretrain", "finetune"])
    Traceback (most recent call last):
    d2v.core.files.kinds.ConfigError: unknown command 'train'; did you mean d2v pretrain or d2v finetune?
    """
    known = list(known)
    if not arguments or arguments[0].startswith("-") or arguments[0] in known:
        return
    name = arguments[0]
    meant = next((text for words, text in _COMMANDS.items() if name.lower() in words.split()), None)
    hint = f"; did you mean {meant}?" if meant else nearest(name, known)
    every = f" (known: {', '.join(known)})"
    raise ConfigError(f"unknown command {name!r}{hint or every}")


def refuse_options(arguments: Sequence[str], known: Callable[[], Sequence[Key]]) -> None:
    """Refuse `--key value`, since keys are `key=value`, with the correct form.

    Args:
        arguments: of a command.
        known: gives the keys that the command accepts.

    Raises:
        ConfigError: naming the argument.

    >>> refuse_options(["out=run", "--lr", "3"], lambda: [Key("optim.lr", 0.1)])
    Traceback (most recent call last):
    d2v.core.files.kinds.ConfigError: '--lr 3': keys have no dashes; write optim.lr=3
    """
    if {"-h", "--help"} & set(arguments):
        return
    for position, argument in enumerate(arguments):
        if not argument.startswith("-") or argument in ("-", "--"):
            continue
        name, equals, value = argument.lstrip("-").partition("=")
        following = arguments[position + 1] if position + 1 < len(arguments) else ""
        given = argument
        if not equals and following and not following.startswith("-") and "=" not in following:
            given, value = f"{argument} {following}", following
        word = "multirun" if argument == "-m" and given == argument else name.replace("-", "_")
        if word in _ORIGINAL_OPTIONS:
            raise ConfigError(f"{given!r}: {_ORIGINAL_OPTIONS[word]}")
        keys = {key.name: key for key in known()}
        name = _LETTERS.get(name, name)
        section = any(key.startswith(f"{name}.") for key in keys)
        meant, note = ([], "") if section else meant_key(name, keys, misspelt=False)
        key = meant[0] if meant else name
        if key in keys and bool in (keys[key].type, *get_args(keys[key].type)) and not equals:
            given, value = argument, "true"
        raise ConfigError(
            f"{given!r}: keys have no dashes; write {key}={value or 'VALUE'}" + (f" ({note})" if note else "")
        )
