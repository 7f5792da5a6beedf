"""Features of a data set from any encoder, in one pass over the data.

Layers are read by a sink, as by a data2vec teacher; the only requirement on an encoder is `Encodes`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from attrs import evolve
from torch import Tensor, nn

from d2v.core.finite import NotFiniteError, is_finite
from d2v.core.model import Batch, Encodes
from d2v.core.nn import LayerFeatures
from d2v.core.nn.sinks import ResultKind
from d2v.core.precision import FeaturePrecision, Precision, autocast, decided
from d2v.core.probes.features import Features, described, joined
from d2v.core.probes.pooling import check_pooling, pool_layer
from d2v.core.suggestions import nearest
from d2v.core.validators import check, one_of

Layers = Literal["final", "all"] | int | Sequence[int] | None
"""Which features of an encoder to use.

- "final": its output, after the norm that follows the last block if there is one.
- A layer, or several: the mean of their results. Layers count from 0, or negative from the end.
- "all" or None: the mean of all blocks.
"""
ALL: Mapping[str, Layers] = {"all": None}
"""The mean of all blocks of the shared encoder, under the name "all"."""
_FINAL = ()  # represents the final output, which is not the result of a layer


def encode_layers(
    encoder: Encodes,
    batches: Iterable[Batch],
    *,
    poolings: Sequence[str] = ("mean",),
    layers: Mapping[str, Layers] = ALL,
    result: ResultKind = "block",
    depth: int | None = None,
    device: torch.device | str | None = None,
    precision: FeaturePrecision = "fp32",
) -> Iterator[Features]:
    """Features batch by batch, for data sets too large for memory; `collect_features` returns all of them together.

    The encoder runs in evaluation mode, without gradients and without masks, up to the last requested layer. Between
    batches it is in its previous mode.

    Args:
        encoder: a `Backbone` or anything else that encodes.
        batches: of any size; a `Backbone` may need further fields of them.
        poolings: see `pool_layer`.
        layers: name to choice of layers, see `Layers`.
        result: of a layer: "block" = its output; "ffn" = its feed-forward branch, which targets are made of.
        depth: number of blocks of the encoder; None = that of the backbone. Not needed for the final output.
        device: device of the encoder, to which batches are moved; None = that of its first parameter.
        precision: of the encoder: fp32, bf16, or auto = bf16 where the device computes in it natively; poolings are
            float32.

    Returns:
        An iterator over the features of each batch.

    Raises:
        ValueError: immediately if a pooling, layer, result or precision does not exist, the depth is unknown, or a
            feed-forward branch of the final output is requested; while iterating if a pooling does not fit the encoder.
        NotFiniteError: while iterating, if features are not finite.

    >>> from d2v.core.model import Backbone, Local, ModalityAdapter
    >>> from d2v.core.nn import TransformerEncoder
    >>> class Front(nn.Module):
    ...     def forward(self, batch):
    ...         return Local(x=batch.source, padding=None, grid=(batch.source.shape[1],))
    >>> backbone = Backbone(ModalityAdapter(Front()), TransformerEncoder.stack(8, depth=3, num_heads=2))
    >>> for features in encode_layers(backbone, [Batch(source=torch.randn(2, 5, 8))], layers={"last": [-1]}):
    ...     print(features.values["last"]["mean"].shape)
    torch.Size([2, 8])
    """
    for pooling in poolings:
        check_pooling(pooling)
    check(one_of(FeaturePrecision), precision=precision)
    check(one_of(ResultKind), result=result)
    if depth is None and any(some != "final" for some in layers.values()):
        depth = _depth(encoder)
    chosen = {name: _resolved(name, some, result, depth) for name, some in layers.items()}
    device = _device(encoder) if device is None else torch.device(device)
    return _encode(encoder, batches, poolings, chosen, result, device, decided(precision, device))


def collect_features(
    encoder: Encodes,
    batches: Iterable[Batch],
    *,
    poolings: Sequence[str] = ("mean",),
    layers: Mapping[str, Layers] = ALL,
    result: ResultKind = "block",
    depth: int | None = None,
    device: torch.device | str | None = None,
    precision: FeaturePrecision = "fp32",
) -> Features:
    """Features of all batches together; arguments as in `encode_layers`.

    "tokens" of sequences are padded with 0 to the longest.

    Raises:
        ValueError: as in `encode_layers`; and if there is no batch, some have labels and others not, or patches of
            different 2-d grids would be combined.

    >>> from d2v.core.model import Backbone, Local, ModalityAdapter
    >>> from d2v.core.nn import TransformerEncoder
    >>> class Front(nn.Module):
    ...     def forward(self, batch):
    ...         return Local(x=batch.source, padding=None, grid=(batch.source.shape[1],))
    >>> backbone = Backbone(ModalityAdapter(Front()), TransformerEncoder.stack(8, depth=3, num_heads=2))
    >>> batches = [Batch(source=torch.randn(2, 5, 8), labels=torch.tensor([0, 1])) for _ in range(3)]
    >>> features = collect_features(backbone, batches, poolings=["mean", "grid"], layers={"all": None, "0": [0]})
    >>> features.values["0"]["grid"].shape
    torch.Size([6, 32])
    >>> features.labelled("mean").labels
    tensor([0, 1, 0, 1, 0, 1])
    """
    parts = encode_layers(
        encoder,
        batches,
        poolings=poolings,
        layers=layers,
        result=result,
        depth=depth,
        device=device,
        precision=precision,
    )
    return joined(list(parts))


def _encode(
    encoder: Encodes,
    batches: Iterable[Batch],
    poolings: Sequence[str],
    chosen: Mapping[str, tuple[int, ...]],
    result: ResultKind,
    device: torch.device,
    precision: Precision,
) -> Iterator[Features]:
    wanted = {layer for layers in chosen.values() for layer in layers}
    final = _FINAL in chosen.values()
    first = 0
    for batch in batches:
        sink = LayerFeatures(wanted, kind=result, output=final)
        with torch.no_grad():
            with evaluating(encoder), autocast(precision, device):
                encoded = encoder.encode(batch.to(device), sink=sink)
            values: dict[str, dict[str, Tensor]] = {}
            for name, layers in chosen.items():
                read = encoded.x.float() if layers == _FINAL else _mean_of(sink.results, layers)
                values[name] = {
                    pooling: pool_layer(
                        read,
                        pooling,
                        num_prefix_tokens=encoded.num_prefix_tokens,
                        grid=encoded.grid,
                        padding=encoded.padding,
                    ).cpu()
                    for pooling in poolings
                }
        patches = "tokens" in poolings
        padding = (
            encoded.padding[:, encoded.num_prefix_tokens :].cpu() if patches and encoded.padding is not None else None
        )
        named = described(batch, first)
        _check_finite(values, named.ids, sink.results)
        yield evolve(named, values=values, padding=padding, grid=tuple(encoded.grid) if patches else None)
        first += batch.size


def _check_finite(values: Mapping[str, Mapping[str, Tensor]], ids: Tensor, results: Mapping[int, Tensor]) -> None:
    """Raise if features are not finite; checked on the CPU, after the transfer, so that no device has to wait."""
    for name, poolings in values.items():
        for x in poolings.values():
            if is_finite(x):
                continue
            bad = ~x.flatten(1).isfinite().all(1)
            layer = next((str(layer) for layer in sorted(results) if not is_finite(results[layer])), None)
            where = f" in layers {name!r}" if layer is None else f", first after layer {layer}"
            raise NotFiniteError("features", ids[bad].tolist(), where=where)


def _mean_of(results: Mapping[int, Tensor], layers: Sequence[int]) -> Tensor:
    for layer in layers:
        if layer not in results:
            raise ValueError(f"the encoder did not pass layer {layer} to its sink")
    total = results[layers[0]].float()
    for layer in layers[1:]:
        total = total + results[layer].float()
    return total / len(layers)


def _depth(encoder: Encodes) -> int:
    depth = getattr(encoder, "depth", None)
    if isinstance(depth, int):
        return depth
    raise ValueError(f"the number of layers of a {type(encoder).__name__} is unknown; give depth")


def _resolved(name: str, layers: Layers, result: ResultKind, depth: int | None) -> tuple[int, ...]:
    if layers == "final":
        if result == "ffn":
            raise ValueError(
                f"layers {name!r}: the final output has no feed-forward branch; give result='block' or layers"
            )
        return _FINAL
    assert depth is not None  # known wherever a layer is read
    if depth < 1:
        raise ValueError(f"depth={depth}: the encoder has no blocks")
    there = f"the encoder has layers 0 to {depth - 1}, or -{depth} to -1 from the end, 'all' and 'final'"
    if isinstance(layers, str) and layers != "all":
        raise ValueError(f"layers {layers!r} do not exist: {there}{nearest(layers, ['all', 'final'])}")
    if layers is None or isinstance(layers, str):
        return tuple(range(depth))
    chosen = (layers,) if isinstance(layers, int) else tuple(layers)
    for layer in chosen:
        if not -depth <= layer < depth:
            raise ValueError(f"layer {layer} does not exist: {there}")
    chosen = tuple(layer % depth for layer in chosen)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"layers {name!r} must be distinct, at least one, not {list(chosen)}")
    return chosen


def _device(encoder: Encodes) -> torch.device:
    parameter = next(encoder.parameters(), None) if isinstance(encoder, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


@contextmanager
def evaluating(encoder: Encodes | nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards each module has its own mode back, since frozen ones may differ."""
    modes = {part: part.training for part in encoder.modules()} if isinstance(encoder, nn.Module) else {}
    try:
        if isinstance(encoder, nn.Module):
            encoder.eval()
        yield
    finally:
        for part, training in modes.items():
            part.training = training
