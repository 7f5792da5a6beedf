"""The values that pass between the parts of a model.

All tensors are batch first. They say nothing of how they were made. They are standard-library dataclasses, because DDP
and FSDP2 look for tensors in those and not in attrs classes.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from d2v.core.masks import Mask
from d2v.core.suggestions import nearest

_Part = TypeVar("_Part")


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Samples as a data set gives them.

    Args:
        source: raw input, `b ...`: images `b c h w`, waveforms `b s`, token ids `b t`.
        padding: Bool `b raw` over the raw samples or tokens, True = padding; None = no padding (text: told by the ids).
        ids: Long `b`, the samples' own numbers, from which masks are drawn; None = the place in the batch.
        mask: given mask; it wins over the model's masker.
        view: the teacher's input in place of `source`.
        labels: the task's labels.
        label_lengths: the task's label lengths, Long `b`.
        modality: name of the adapter; None where a model has one only.

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

    def __post_init__(self) -> None:
        _check_padding(self.padding, self.source.shape[:2], "source")

    @property
    def size(self) -> int:
        """b, the number of samples."""
        return self.source.shape[0]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """The same batch on another device."""

        def moved(value: Any) -> Any:
            return value.to(device, non_blocking=non_blocking) if isinstance(value, Tensor | Mask) else value

        return self._with_each(moved)

    def pin_memory(self) -> "Batch":
        """The same batch in memory that a GPU copies from without being waited for; a mask stays where it is."""
        return self._with_each(lambda value: value.pin_memory() if isinstance(value, Tensor) else value)

    def _with_each(self, change: Callable[[Any], Any]) -> "Batch":
        return Batch(**{field.name: change(getattr(self, field.name)) for field in dataclasses.fields(Batch)})

    def seen_by_teacher(self) -> "Batch":
        """The same samples with the teacher's view as their source."""
        return self if self.view is None else dataclasses.replace(self, source=self.view, view=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Local:
    """What a front end makes of a batch, once a sample and with nothing masked.

    Args:
        x: `b t d`.
        padding: Bool `b t`, True = padding, or None.
        grid: (t,) or (h, w), the layout of the positions.

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
    """What the shared encoder receives; rows are ordered (b m).

    Args:
        x: `(b m) (e+k) d`, k = t or the v visible positions.
        padding: Bool `(b m) (e+k)`, True = padding, or None.
        position: Long `(b m) k`, the position of each token; None = all in order.
        num_prefix_tokens: e, extra tokens in front.
        grid: (t,) or (h, w), the layout of all positions.
        bias: layer to attention bias, or None; layers count context blocks first.
        num_context: blocks that have already run.
    """

    x: Tensor
    padding: Tensor | None
    position: Tensor | None
    num_prefix_tokens: int
    grid: tuple[int, ...]
    bias: Callable[[int], Tensor | None] | None = None
    num_context: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """What the encoder returns.

    Args:
        x: `(b m) (e+k) d`.
        padding: Bool `(b m) (e+k)`, True = padding, or None.
        num_prefix_tokens: e, extra tokens in front.
        grid: (t,) or (h, w), the layout of all positions.
        local: the local features that the tokens were made of, or None where the encoder has none to show.
    """

    x: Tensor
    padding: Tensor | None
    num_prefix_tokens: int
    grid: tuple[int, ...]
    local: Local | None = None

    @property
    def class_token(self) -> Tensor:
        """The class token `(b m) d`: the last token in front of the positions, which the class-token loss trains.

        Raises:
            ValueError: if there are no tokens in front.
        """
        if self.num_prefix_tokens == 0:
            raise ValueError("the encoder has no class token: it puts no tokens in front of the positions")
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
    """Parts by the names of their modalities; a part that is given alone is that of the only modality.

    Raises:
        ValueError: if a part is given alone to several modalities.

    >>> by_modality(0.5, ["vision"], "masker")
    {'vision': 0.5}
    """
    if isinstance(parts, Mapping | nn.ModuleDict):
        return dict(parts.items())
    if len(modalities) != 1:
        raise ValueError(f"one {what} for the modalities {', '.join(modalities)}; give a mapping with one for each")
    return {modalities[0]: parts}


def pick(parts: Mapping[str, _Part] | nn.ModuleDict, modality: str | None, what: str) -> _Part:
    """The part of one modality; without a name, the only one.

    Raises:
        ValueError: if there is no such part, or several and no name.
    """
    if modality is None:
        if len(parts) != 1:
            raise ValueError(f"the model has {what}s for {', '.join(parts)}; name one in Batch.modality")
        modality = next(iter(parts))
    if modality not in parts:
        raise ValueError(f"no {what} for modality {modality!r}, only {', '.join(parts)}{nearest(modality, parts)}")
    return parts[modality]  # type: ignore[return-value]  # a module of the kind that the caller put in
