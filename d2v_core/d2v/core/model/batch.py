"""Values passed between the modules of a model.

All tensors are batch first. These are standard-library dataclasses, because DDP and FSDP2 look for tensors in those and
not in attrs classes.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from attrs import frozen
from torch import Tensor, nn

from d2v.core.masks import Mask
from d2v.core.nn.encoder import LayerBias
from d2v.core.suggestions import nearest

_Part = TypeVar("_Part")


@frozen(kw_only=True)
class Known:
    """Numbers of a batch that were found on the CPU, so that a step need not ask the device.

    Args:
        padded: whether any position is padding.
        visible_padded: whether any visible position of the batch's mask is; None = unknown.
        lengths: number of positions of each sample without padding.
        label_lengths: `Batch.label_lengths`, if the labels are those that the task uses; None = unknown.
    """

    padded: bool
    visible_padded: bool | None = None
    lengths: tuple[int, ...]
    label_lengths: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Samples of a data set.

    Args:
        source: raw input, `b ...`: images `b c h w`, waveforms `b s`, token ids `b t`.
        padding: Bool `b raw` over the raw samples or tokens, True = padding; None = no padding (text: given by the
            ids).
        ids: Long `b`, ids of the samples, from which masks are drawn; None = the index in the batch.
        mask: mask to use instead of the model's masker.
        view: the teacher's input, instead of `source`.
        labels: labels of the task.
        label_lengths: lengths of the labels, Long `b`.
        modality: name of the adapter; None = the only one of the model.
        known: numbers that the `prepared` method of a model has found; None = it was not called.

    Raises:
        ValueError: if `padding` is not Bool or does not fit `source`.

    >>> Batch(source=torch.zeros(2, 3, 8, 8)).size
    2
    """

    source: Tensor
    padding: Tensor | None = None
    ids: Tensor | None = None
    mask: Mask | None = None
    view: Tensor | None = None
    labels: Tensor | None = None
    label_lengths: Tensor | None = None
    modality: str | None = None
    known: Known | None = None

    def __post_init__(self) -> None:
        _check_padding(self.padding, self.source.shape[:2], "source")

    @property
    def size(self) -> int:
        """b, the number of samples."""
        return self.source.shape[0]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """Return the batch on another device."""

        def moved(value: Any) -> Any:
            return value.to(device, non_blocking=non_blocking) if isinstance(value, Tensor | Mask) else value

        return self._with_each(moved)

    def pin_memory(self) -> "Batch":
        """Return the batch in pinned memory, from which copies to a GPU are asynchronous.

        Tensors that are on a GPU stay there.
        """

        def pinned(value: Any) -> Any:
            on_cpu = isinstance(value, Mask) or (isinstance(value, Tensor) and value.device.type == "cpu")
            return value.pin_memory() if on_cpu else value

        return self._with_each(pinned)

    def _with_each(self, change: Callable[[Any], Any]) -> "Batch":
        return Batch(**{field.name: change(getattr(self, field.name)) for field in dataclasses.fields(Batch)})

    def seen_by_teacher(self) -> "Batch":
        """Return the same samples with the teacher's view as their source."""
        return self if self.view is None else dataclasses.replace(self, source=self.view, view=None, known=None)


@frozen(kw_only=True, eq=False)
class Layout:
    """Positions of a batch, which are known before its features are computed.

    Args:
        grid: (t,) or (h, w), layout of the positions.
        padding: Bool `b t`, True = padding, or None.

    >>> Layout(grid=(14, 14)).padding is None
    True
    """

    grid: tuple[int, ...]
    padding: Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Local:
    """Local features: the output of a front end, once per sample and without masking.

    Args:
        x: `b t d`.
        padding: Bool `b t`, True = padding, or None.
        grid: (t,) or (h, w), layout of the positions.

    Raises:
        ValueError: if `padding` is not Bool or does not fit `x`.

    >>> Local(x=torch.zeros(2, 6, 8), padding=None, grid=(2, 3)).grid
    (2, 3)
    """

    x: Tensor
    padding: Tensor | None
    grid: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_padding(self.padding, self.x.shape[:2], "features")


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
    """Input of the shared encoder; rows are ordered (b m).

    Args:
        x: `(b m) (e+k) d`, k = t or the v visible positions.
        padding: Bool `(b m) (e+k)`, True = padding, or None.
        position: Long `(b m) k`, position of each token; None = all positions in order.
        num_prefix_tokens: e, number of extra tokens before the positions.
        grid: (t,) or (h, w), layout of all positions.
        bias: function from a layer to its attention bias (a tensor or by distance), or None; layers count context
            blocks first.
        num_context: number of blocks that have already run.
    """

    x: Tensor
    padding: Tensor | None
    position: Tensor | None
    num_prefix_tokens: int
    grid: tuple[int, ...]
    bias: LayerBias | None = None
    num_context: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """Output of the encoder.

    Args:
        x: `(b m) (e+k) d`.
        padding: Bool `(b m) (e+k)`, True = padding, or None.
        num_prefix_tokens: e, number of extra tokens before the positions.
        grid: (t,) or (h, w), layout of all positions.
        local: local features from which the tokens were computed, or None if the encoder has none.
    """

    x: Tensor
    padding: Tensor | None
    num_prefix_tokens: int
    grid: tuple[int, ...]
    local: Local | None = None

    @property
    def class_token(self) -> Tensor:
        """Class token `(b m) d`: the last token before the positions, which the class-token loss trains.

        Raises:
            ValueError: if there are no extra tokens.
        """
        if self.num_prefix_tokens == 0:
            raise ValueError("the encoder has no class token: it puts no extra tokens before the positions")
        return self.x[:, self.num_prefix_tokens - 1]


def _check_padding(padding: Tensor | None, shape: torch.Size, like: str) -> None:
    if padding is not None and (padding.dtype != torch.bool or padding.shape != shape):
        raise ValueError(
            f"padding must be Bool {tuple(shape)} like the {like}, True = padding, "
            f"not {padding.dtype} {tuple(padding.shape)}"
        )


def by_modality(
    parts: "_Part | Mapping[str, _Part] | nn.ModuleDict", modalities: Sequence[str], what: str
) -> dict[str, _Part]:
    """Return parts by modality; a single part belongs to the only modality.

    Raises:
        ValueError: if a single part is given for several modalities.

    >>> by_modality(0.5, ["vision"], "masker")
    {'vision': 0.5}
    """
    if isinstance(parts, Mapping | nn.ModuleDict):
        return dict(parts.items())
    if len(modalities) != 1:
        raise ValueError(f"one {what} for the modalities {', '.join(modalities)}; give a mapping with one for each")
    return {modalities[0]: parts}


def pick(parts: Mapping[str, _Part] | nn.ModuleDict, modality: str | None, what: str) -> _Part:
    """Return the part of one modality; without a name, the only one.

    Raises:
        ValueError: if there is no such part, or several without a name given.
    """
    if modality is None:
        if len(parts) != 1:
            raise ValueError(f"the model has {what}s for {', '.join(parts)}; name one in Batch.modality")
        modality = next(iter(parts))
    if modality not in parts:
        raise ValueError(f"no {what} for modality {modality!r}, only {', '.join(parts)}{nearest(modality, parts)}")
    return parts[modality]  # type: ignore[return-value]  # a module of the kind that the caller put in
