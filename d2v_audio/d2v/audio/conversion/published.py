"""What the files of the original toolkit's speech models have in common: convolutions, and how input was prepared."""

import ast
from collections.abc import Mapping
from typing import Any

from d2v.audio.config import WaveformAdapterConfig
from d2v.audio.extractor import ConvSpec, ExtractorNorm
from d2v.core.foreign import Rename, Rule, both

EXTRACTOR_NORMS: dict[str, ExtractorNorm] = {"layer_norm": "layer", "default": "group"}
"""Norms of the extractor by the toolkit's names."""
_LONGEST_SPEC, _MOST_LAYERS, _LARGEST_NUMBER = 4000, 100, 1 << 16


def read_conv_layers(spec: str | list[Any]) -> tuple[ConvSpec, ...]:
    """Parse convolutions from a Python expression in a file, such as "[(512, 10, 5)] + [(512, 3, 2)] * 4".

    The expression is parsed, never run: only lists of three integers, + and * are allowed. Limits on length, layers and
    numbers prevent a malicious file from filling the memory.

    Raises:
        ValueError: if the expression contains anything else.

    >>> read_conv_layers("[(8, 10, 5)] + [(8, 3, 2)] * 2")
    ((8, 10, 5), (8, 3, 2), (8, 3, 2))
    """
    try:
        layers = _parse(spec) if isinstance(spec, str) else spec
        if not 0 < len(layers) <= _MOST_LAYERS:
            raise ValueError(f"{len(layers)} layers")
        return tuple(_conv_spec(*layer) for layer in layers)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        shown = repr(spec)
        shown = shown if len(shown) <= 100 else f"{shown[:100]}..."
        raise ValueError(f"{shown} is not a list of (channels, kernel, stride)") from error


def _conv_spec(channels: Any, kernel: Any, stride: Any) -> ConvSpec:
    for number in (channels, kernel, stride):
        if type(number) is not int or not 0 < number <= _LARGEST_NUMBER:  # excludes True
            raise ValueError(f"{number!r} is not an integer from 1 to {_LARGEST_NUMBER}")
    return channels, kernel, stride


def _parse(spec: str) -> Any:
    if len(spec) > _LONGEST_SPEC:
        raise ValueError(f"{len(spec)} characters")
    return _evaluate(ast.parse(spec, mode="eval").body)


def _evaluate(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        values = [_evaluate(part) for part in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
        left, right = _evaluate(node.left), _evaluate(node.right)
        if isinstance(node.op, ast.Add) and isinstance(left, list) and isinstance(right, list):
            return left + right
        repeats = isinstance(node.op, ast.Mult) and isinstance(left, list) and isinstance(right, int)
        if repeats and len(left) * right <= _MOST_LAYERS:
            return left * right
    raise ValueError(f"{type(node).__name__} is not allowed")


def extractor_rules(adapter: WaveformAdapterConfig, theirs: str, ours: str) -> list[Rule]:
    """Key table of the extractor."""
    rules: list[Rule] = []
    for i in range(len(adapter.conv_layers)):
        parts = ("weight", "bias") if adapter.conv_bias else ("weight",)
        rules += [Rename(f"{theirs}.conv_layers.{i}.0.{part}", f"{ours}.convs.{i}.{part}") for part in parts]
        if adapter.extractor_norm == "layer":
            rules += both(f"{theirs}.conv_layers.{i}.2.1", f"{ours}.norms.{i}")
    if adapter.extractor_norm == "group":
        rules += both(f"{theirs}.conv_layers.0.2", f"{ours}.norms.0")
    return rules


def recordings_data(foreign: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the preparation of recordings of a run, as plain values of `AudioDataConfig`; None = unknown.

    >>> recordings_data({"task": {"normalize": True, "labels": "ltr"}})
    {'kind': 'audio/recordings', 'sample_rate': 16000, 'normalize': True}
    """
    task = foreign.get("task")
    if not isinstance(task, Mapping) or "normalize" not in task:
        return None
    rate = task.get("sample_rate", 16_000)
    return {"kind": "audio/recordings", "sample_rate": rate, "normalize": bool(task["normalize"])}
