"""Small models and helpers that several tests share.

They are made of core's pieces alone, with a toy modality, so that the tests of core need no other package.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from attrs import field, frozen
from torch import Tensor, nn

from d2v.core.files import add_kind
from d2v.core.foreign import Converted, Converter, Shapes, convert
from d2v.core.loss import RegressionLoss
from d2v.core.masks import Mask, RandomMasker
from d2v.core.model import (
    AdapterConfig,
    AlibiConfig,
    BackboneConfig,
    Batch,
    BlockConfig,
    ContextConfig,
    ConvDecoderConfig,
    Data2VecConfig,
    EncoderConfig,
    ExtraTokens,
    Layout,
    Local,
    MaskedHeadConfig,
    MaskToken,
    ModalityAdapter,
    TargetsConfig,
    TeacherConfig,
    TransformerConfig,
)
from d2v.core.teacher import EMASchedule

WIDTH = 3  # numbers at each position of the toy's raw input
DIM = 16


class ToyFront(nn.Module):
    """Raw input `b t c` to features by one linear map; padding and positions are those of the raw input."""

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, embed_dim)

    def forward(self, batch: Batch) -> Local:
        return Local(x=self.proj(batch.source), padding=batch.padding, grid=(batch.source.shape[1],))

    def layout(self, batch: Batch) -> Layout:
        return Layout(grid=(batch.source.shape[1],), padding=batch.padding)


class ToyPositions(nn.Module):
    """Learned positions `1 t d`, for up to 32 positions."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 32, embed_dim))

    def forward(self, x: Tensor, mask: Mask | None) -> Tensor:
        return self.table[:, : x.shape[1]]


class ToyAdapter(ModalityAdapter):
    """Its raw content is what it reads, so that it can be reconstructed."""

    def pixels(self, batch: Batch) -> Tensor:
        return batch.source


@frozen(kw_only=True)
class ToyAdapterConfig:
    """An adapter with every standard part, each of which may be absent."""

    width: int = WIDTH
    positions: bool = True
    alibi: AlibiConfig | None = None
    extra_tokens: int = 0
    mask_token: bool = False
    context: ContextConfig | None = None
    options: Mapping[str, Any] = field(factory=dict)

    dims = 1

    @property
    def pixel_dim(self) -> int:
        return self.width

    def build(self, encoder: EncoderConfig) -> ModalityAdapter:
        embed_dim, heads = encoder.embed_dim, encoder.num_heads
        layers = encoder.depth + (0 if self.context is None else self.context.depth)
        return ToyAdapter(
            ToyFront(self.width, embed_dim),
            positions=ToyPositions(embed_dim) if self.positions else None,
            bias=None if self.alibi is None else self.alibi.build(num_heads=heads, num_layers=layers),
            extra_tokens=ExtraTokens(self.extra_tokens, embed_dim) if self.extra_tokens else None,
            mask_token=MaskToken(embed_dim) if self.mask_token else None,
            context=None if self.context is None else encoder.build_context(self.context),
            **self.options,
        )


DECODER = ConvDecoderConfig(decoder_dim=DIM, num_layers=2, kernel_size=3, groups=4, noise_std=0.0)
NEW = Data2VecConfig(  # the composition of data2vec 2.0
    student=BackboneConfig(
        encoder=TransformerConfig(block=BlockConfig(embed_dim=DIM, num_heads=2), depth=3),
        adapters={"toy": ToyAdapterConfig()},
    ),
    predictors={"toy": DECODER},
    maskers={"toy": RandomMasker(mask_prob=0.5)},
    targets=TargetsConfig(layers=2),
    teacher=TeacherConfig(schedule=EMASchedule(0.9)),
    num_masks=2,
)
FORMER = attrs.evolve(  # the composition of data2vec 1.0
    NEW,
    student=attrs.evolve(NEW.student, adapters={"toy": ToyAdapterConfig(mask_token=True)}, visible_only=False),
    predictors={"toy": MaskedHeadConfig()},
    loss=RegressionLoss(beta=1.0),
    num_masks=1,
)


def with_student(config: Data2VecConfig, **parts: Any) -> Data2VecConfig:
    """The configuration with other parts of its student."""
    return attrs.evolve(config, student=attrs.evolve(config.student, **parts))


def adapted(config: Data2VecConfig, **parts: Any) -> Data2VecConfig:
    """The configuration with other parts of its toy adapter."""
    return with_student(config, adapters={"toy": attrs.evolve(config.student.adapters["toy"], **parts)})


def toy_batch(b: int = 3, t: int = 8, *, width: int = WIDTH, **fields: Any) -> Batch:
    """Random raw input of the toy modality."""
    return Batch(source=torch.randn(b, t, width), **fields)


def random_mask(b: int, m: int, t: int, hidden: int) -> Mask:
    """`hidden` random positions of each row."""
    order = torch.rand(b * m, t).argsort(1)
    return Mask(hidden=order < hidden, num_masks=m)


def padding_of(lengths: list[int], t: int) -> Tensor:
    """Right padding, Bool `b t`."""
    return torch.arange(t) >= torch.tensor(lengths)[:, None]


def randomise(module: nn.Module, std: float = 0.5) -> nn.Module:
    """Give every parameter a random value, so that nothing is hidden by a zero or a one that it starts with."""
    for parameter in module.parameters():
        parameter.data += torch.randn_like(parameter) * std
    return module


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Gradients by name, of the parameters that have one."""
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@contextmanager
def calls_of(modules: Mapping[str, nn.Module]) -> Iterator[list[str]]:
    """The names of the modules in the order in which they run."""
    calls: list[str] = []
    handles = [m.register_forward_hook(lambda *_, n=name: calls.append(n)) for name, m in modules.items()]
    yield calls
    for handle in handles:
        handle.remove()


def converted_back(converters: Iterable[Converter], model: Mapping[str, Any], shapes: Shapes) -> Converted:
    """Name the tensors of a random model as a file would, and convert that file; every tensor must come back."""
    foreign = {"model": model}
    converter = next(one for one in converters if one.accepts(foreign))
    description = converter.config(foreign, shapes)
    one = Converted(randomise(description.build()), description, converter.layout(description, shapes))
    state = one.model.state_dict()
    student = one.student_names({n: t for n, t in state.items() if not n.startswith("teacher.")})
    teacher = one.teacher_names(one.model.teacher.module.state_dict())
    tensors = {f"{one.layout.prefixes[0]}{name}": tensor for name, tensor in student.items()}
    tensors |= {f"{one.layout.teacher_prefixes[0]}{name}": tensor for name, tensor in teacher.items()}
    back = convert(converters, foreign, tensors)
    found = back.model.state_dict()
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(found[name], tensor), name
    return back


def changed(foreign: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A foreign configuration with one field, "modalities.audio.use_alibi_encoder", changed or added."""
    first, _, rest = path.partition(".")
    return {**foreign, first: changed(foreign[first], rest, value) if rest else value}


add_kind(AdapterConfig, "toy", ToyAdapterConfig)
