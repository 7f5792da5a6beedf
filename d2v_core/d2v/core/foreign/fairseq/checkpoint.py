"""Checkpoints of the original toolkit: configuration of the run, tensors and dictionaries."""

from collections.abc import Mapping
from typing import Any

from d2v.core.foreign.formats import Unpacked
from d2v.core.foreign.stand_ins import StandIn
from d2v.core.foreign.stored import tensors_below

_DICTIONARY = "Dictionary"


def unpack(contents: Mapping[str, Any]) -> Unpacked | None:
    """The model of a checkpoint; None if the file is not a checkpoint of the toolkit.

    Its description is the configuration of the run: `model`, `task` and further sections, and in addition
    `dictionaries`, the symbols of each dictionary in the file by its name. Files from before sections existed have one
    namespace, which is used for all sections.

    Args:
        contents: as from `read_file`.

    Raises:
        ValueError: if one of the tensors is another object.
    """
    run, tensors = contents.get("cfg"), contents.get("model")
    if run is None and isinstance(contents.get("args"), Mapping):
        run = {"model": contents["args"], "task": contents["args"]}
    if not isinstance(run, Mapping) or not isinstance(tensors, Mapping):
        return None
    state = contents.get("task_state")
    objects = state if isinstance(state, Mapping) else {}
    dictionaries = {name: symbols_of(value) for name, value in objects.items() if _is_dictionary(value)}
    return Unpacked({**run, "dictionaries": dictionaries}, tensors_below(tensors))


def model_section(foreign: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model's section of a run's configuration; empty if there is none."""
    section = foreign.get("model")
    return section if isinstance(section, Mapping) else {}


def symbols_of(dictionary: StandIn) -> tuple[str, ...]:
    """The symbols of a dictionary of the toolkit, in the order of their numbers.

    Raises:
        ValueError: if it has no list of symbols.

    >>> symbols_of(StandIn("fairseq.data.dictionary.Dictionary", state={"symbols": ["<s>", "<pad>"], "nspecial": 2}))
    ('<s>', '<pad>')
    """
    symbols = dictionary.state.get("symbols") if isinstance(dictionary.state, dict) else None
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        raise ValueError(f"a dictionary in it ({dictionary.kind}) has no list of symbols")
    return tuple(symbols)


def _is_dictionary(value: Any) -> bool:
    return isinstance(value, StandIn) and value.kind.rpartition(".")[2] == _DICTIONARY
