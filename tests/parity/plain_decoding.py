"""The beam search of speech recognition in plain loops, written from its description alone.

A hypothesis is (score, path, words); its key is (word history, node of the tree, last token, whether it is blank).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

History = tuple[str, ...]
Score = Callable[[History, str], float]
"""log10 p(word | history); the end of a sentence is `</s>`."""
Key = tuple[History, int, int, bool]
Found = tuple[float, tuple[int, ...], tuple[str, ...]]


@dataclass
class Node:
    """A node of the prefix tree; node 0 is the root."""

    children: dict[int, int] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    best: float = -math.inf


def tree(lexicon: Sequence[tuple[str, tuple[int, ...]]], lm: Score) -> list[Node]:
    """Nodes of the spellings, each with the best score of a node below it.

    The score of a node with several words (homophones) is log(sum(exp(score))); the description has the maximum, but
    the original's tree adds them up before it takes maxima.
    """
    nodes, paths = [Node()], []
    for word, spelling in lexicon:
        path = [0]
        for token in spelling:
            if token not in nodes[path[-1]].children:
                nodes.append(Node())
                nodes[path[-1]].children[token] = len(nodes) - 1
            path.append(nodes[path[-1]].children[token])
        nodes[path[-1]].words.append(word)
        paths.append(path)
    for path in paths:
        own = math.log(sum(math.exp(lm((), word)) for word in nodes[path[-1]].words))
        for one in path:
            nodes[one].best = max(nodes[one].best, own)
    return nodes


def lexicon_search(
    emissions: Sequence[Sequence[float]],
    lexicon: Sequence[tuple[str, tuple[int, ...]]],
    lm: Score,
    *,
    blank: int,
    silence: int,
    options: Mapping[str, Any],
) -> list[Found]:
    """Hypotheses, the best first; their paths have the silence before the first and after the last frame."""
    nodes, weight = tree(lexicon, lm), options["lm_weight"]
    beam: dict[Key, Found] = {((), 0, silence, False): (0.0, (silence,), ())}
    for frame in emissions:
        tokens = _best_tokens(frame, options["beam_size_token"])
        candidates: list[tuple[Key, Found]] = []
        for (history, v, last, blanked), (score, path, words) in beam.items():
            node, pm = nodes[v], 0.0 if v == 0 else nodes[v].best
            for n in tokens:
                if n not in node.children:
                    continue
                a = score + frame[n] + (options["sil_score"] if n == silence else 0)
                c = node.children[n]
                if (blanked or n != last) and nodes[c].children:
                    more = a + weight * (nodes[c].best - pm)
                    candidates.append(((history, c, n, False), (more, (*path, n), words)))
                if not (v == 0 and n == last):
                    for word in nodes[c].words:
                        more = a + weight * (lm(history, word) - pm) + options["word_score"]
                        candidates.append((((*history, word), 0, n, False), (more, (*path, n), (*words, word))))
                if not nodes[c].words and options["unk_score"] is not None:
                    more = a + weight * (lm(history, "<unk>") - pm) + options["unk_score"]
                    candidates.append((((*history, "<unk>"), 0, n, False), (more, (*path, n), (*words, "<unk>"))))
            if not blanked or v == 0:
                token = silence if v == 0 else last
                a = score + frame[token] + (options["sil_score"] if token == silence else 0)
                candidates.append(((history, v, token, False), (a, (*path, token), words)))
            candidates.append(((history, v, blank, True), (score + frame[blank], (*path, blank), words)))
        beam = _kept(candidates, options)
    ended = {key: one for key, one in beam.items() if key[1] == 0} or beam
    return _finished(ended, lm, silence, options)


def free_search(
    emissions: Sequence[Sequence[float]],
    symbols: Sequence[str],
    lm: Score,
    *,
    blank: int,
    silence: int,
    options: Mapping[str, Any],
) -> list[Found]:
    """Hypotheses without a lexicon; the language model scores symbols."""
    beam: dict[Key, Found] = {((), 0, silence, False): (0.0, (silence,), ())}
    for frame in emissions:
        candidates: list[tuple[Key, Found]] = []
        for (history, _, last, blanked), (score, path, _) in beam.items():
            for n in _best_tokens(frame, options["beam_size_token"]):
                a = score + frame[n] + (options["sil_score"] if n == silence else 0)
                if n == blank:
                    candidates.append(((history, 0, n, True), (a, (*path, n), ())))
                elif n != last or blanked:
                    a += options["lm_weight"] * lm(history, symbols[n])
                    candidates.append((((*history, symbols[n]), 0, n, False), (a, (*path, n), ())))
                else:
                    candidates.append(((history, 0, n, False), (a, (*path, n), ())))
        beam = _kept(candidates, options)
    return _finished(beam, lm, silence, options)


def _best_tokens(frame: Sequence[float], count: int | None) -> list[int]:
    order = sorted(range(len(frame)), key=lambda n: -frame[n])
    return order if count is None else order[:count]


def _kept(candidates: list[tuple[Key, Found]], options: Mapping[str, Any]) -> dict[Key, Found]:
    least = max(one[0] for _, one in candidates) - options["beam_threshold"]
    merged: dict[Key, Found] = {}
    for key, one in candidates:
        if one[0] >= least and (key not in merged or one[0] > merged[key][0]):
            merged[key] = one
    return dict(sorted(merged.items(), key=lambda item: -item[1][0])[: options["beam_size"]])


def _finished(beam: dict[Key, Found], lm: Score, silence: int, options: Mapping[str, Any]) -> list[Found]:
    """The hypotheses with the end of the sentence: silence follows, so those with equal histories merge once more."""
    candidates: list[tuple[Key, Found]] = [
        (
            ((*history, "</s>"), node, silence, False),
            (score + options["lm_weight"] * lm(history, "</s>"), (*path, silence), words),
        )
        for (history, node, *_), (score, path, words) in beam.items()
    ]
    return list(_kept(candidates, options).values())[: options["nbest"]]
