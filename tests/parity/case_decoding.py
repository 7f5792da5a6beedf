"""Decoding folders: emissions, a lexicon and language models, and the hypotheses that the original's search found."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from d2v.audio.decoding import (
    BeamSearch,
    Hypothesis,
    SearchSpace,
    load_lm,
    read_lexicon,
    read_transformer_lm,
    searched_words,
)
from d2v.audio.recordings.dictionary import librispeech_dictionary, parse_dictionary

_SCORES = 1e-4
_OPTIONS = {
    "beam": "beam_size",
    "beamsizetoken": "beam_size_token",
    "beamthreshold": "beam_threshold",
    "lmweight": "lm_weight",
    "wordscore": "word_score",
    "unkweight": "unk_score",
    "silweight": "sil_score",
    "nbest": "nbest",
}
_FILES = ("expected.json", "expected_transformer_lm.json")
_LM_IO = "transformer_lm.io.safetensors"


def is_decoding(path: Path) -> bool:
    """Whether a folder is one of these."""
    return (path / "emissions.safetensors").is_file() and any((path / name).is_file() for name in _FILES)


def compare(path: Path) -> tuple[list[str], dict[str, float]]:
    """Problems in words (none = agreement), and the largest difference of the scores by file.

    Words, tokens, time steps and paths must be equal; scores may differ by 1e-4.
    """
    problems: list[str] = []
    largest: dict[str, float] = {}
    (emissions,) = load_file(path / "emissions.safetensors").values()
    for name in _FILES:
        if not (path / name).is_file():
            continue
        expected = json.loads((path / name).read_text())
        for number, case in enumerate(expected["cases"]):
            found = [search(path, name, case["params"])(row) for row in emissions]
            for utterance, (wanted, given) in enumerate(zip(case["hypotheses"], found, strict=True)):
                where = f"{name} case {number} utterance {utterance}"
                problems += [f"{where}: {one}" for one in _differences(wanted, given)]
                gaps = [abs(a["score"] - b.score) for a, b in zip(wanted, given, strict=False)]
                largest[name] = max(largest.get(name, 0.0), *gaps)
    if (path / _LM_IO).is_file():
        io = load_file(path / _LM_IO)
        with torch.no_grad():
            gap = (read_transformer_lm(path / "transformer_lm.pt")[0](io["lm.tokens"]) - io["lm.log_probs"]).abs().max()
        largest["lm.log_probs"] = float(gap)
        problems += [] if gap < _SCORES else [f"lm.log_probs differ by {gap:.1e}"]
    return problems, largest


def search(path: Path, name: str, params: Mapping[str, Any]) -> BeamSearch:
    """The search with the parameters of a case; without parameters for it, the original's defaults are ours."""
    own = path / "dict.ltr.txt"
    text, shown = (own.read_text(), str(own)) if own.is_file() else (librispeech_dictionary(), "dict.ltr.txt")
    labels = parse_dictionary(text, shown)
    free = params.get("unitlm", False) or params.get("lexicon_free", False)
    lexicon = None if free else read_lexicon(path / params.get("lexicon", "lexicon.txt"), labels)
    lm = "transformer_lm.pt" if "transformer" in name else "lm.arpa"
    words = searched_words(labels, lexicon)
    space = SearchSpace.of(labels, lexicon, load_lm(path / params.get("lm", lm), words, ignored=labels.symbols[:4]))
    unknown = set(params) - {*_OPTIONS, "unitlm", "lexicon_free", "lexicon", "lm"}
    if unknown:
        raise ValueError(f"unknown parameters {', '.join(sorted(unknown))}")
    return BeamSearch(space, **{_OPTIONS[key]: value for key, value in params.items() if key in _OPTIONS})


def _differences(wanted: Sequence[Mapping[str, Any]], given: Sequence[Hypothesis]) -> Iterator[str]:
    if len(wanted) != len(given):
        yield f"{len(given)} hypotheses, not {len(wanted)}"
    for number, (a, b) in enumerate(zip(wanted, given, strict=False)):
        ours: dict[str, list[Any]] = {
            "tokens": list(b.tokens),
            "words": list(b.words or ()),
            "timesteps": list(b.timesteps),
            "raw_tokens": [b.tokens[0], *b.path, b.tokens[-1]],
        }
        for key, value in ours.items():
            if key in a and a[key] != value:
                yield f"{key} of hypothesis {number} are {value}, not {a[key]}"
        if not abs(a["score"] - b.score) <= _SCORES:
            yield f"score of hypothesis {number} is {b.score}, not {a['score']}"
