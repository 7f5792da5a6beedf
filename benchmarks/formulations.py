"""A training step in two formulations: the library's, and the published formulas written out.

The plain one is the forward pass of `tests/parity/plain.py`, which reproduces the original's numbers, with torch's
fused AdamW and a foreach average. It repeats every sample for its masks and keeps every output. Both have the dropouts
and the noise of the recipe, and no layer drop, so that all steps compute the same.
"""

import json
import math
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import torch
from attrs import frozen
from published import config_of
from torch import Tensor

from d2v.audio import WaveformAdapterConfig
from d2v.core import Batch, Data2Vec
from d2v.core.description import Description
from d2v.core.foreign import Converted
from d2v.core.jobs.kernels import use_kernels
from d2v.core.modality import modalities
from d2v.core.model import ConvDecoderConfig, Data2VecConfig, Local
from d2v.core.nn.recompute import keeping_less
from d2v.core.precision import Precision, autocast
from d2v.core.recipes.sections import PLAIN
from d2v.core.train import PublishedAdamW, parameter_groups
from d2v.text import TextAdapterConfig
from d2v.vision import ImageAdapterConfig

PARITY = Path(__file__).parents[1] / "tests" / "parity"
sys.path.insert(0, str(PARITY))

Step = Callable[[], None]
_CLIP = 4.0
_TOY_DIM = 48  # divides into the groups of every decoder


@frozen(kw_only=True)
class Case:
    """A model and the size of its input.

    Args:
        name: name of a recipe, or of a published size without one.
        config: configuration of the model.
        seconds: duration of a waveform.
        tokens: length of a text.
    """

    name: str
    config: Data2VecConfig
    seconds: float = 10.0
    tokens: int = 512

    @classmethod
    def of(cls, name: str, *, toy: bool = False, depth: int | None = None) -> "Case":
        """Return the case of a name.

        Args:
            name: name of a recipe, or of a published size without one.
            toy: whether it is the same composition in a size for tests.
            depth: number of blocks, and of the layers of the targets at most; None = all.
        """
        config = _without_layer_drop(config_of(name))
        config = config if depth is None else _of_depth(config, depth)
        if not toy:
            return cls(name=name, config=config)
        return cls(name=name, config=_smaller(config), seconds=0.5, tokens=40)

    @property
    def modality(self) -> str:
        """Modality of the only adapter."""
        return next(iter(self.config.student.adapters))

    @property
    def grid(self) -> tuple[int, ...]:
        """Grid of a sample's positions."""
        adapter = self.config.student.adapters[self.modality]
        if isinstance(adapter, ImageAdapterConfig):
            return tuple(size // patch for size, patch in zip(adapter.image_size, adapter.patch_size, strict=True))
        if isinstance(adapter, WaveformAdapterConfig):
            frames = int(self.seconds * 16_000)
            for _, kernel, stride in adapter.conv_layers:
                frames = (frames - kernel) // stride + 1
            return (frames,)
        return (self.tokens,)

    def positions(self, source: Tensor) -> Local:
        """Local features that contain only the grid, which is all that a masker needs."""
        return Local(x=source.new_zeros(len(source), math.prod(self.grid), 1), padding=None, grid=self.grid)

    def samples(self, batch: int) -> Tensor:
        """Random input."""
        adapter = self.config.student.adapters[self.modality]
        if isinstance(adapter, ImageAdapterConfig):
            return torch.randn(batch, adapter.channels, *adapter.image_size)
        if isinstance(adapter, WaveformAdapterConfig):
            return torch.randn(batch, int(self.seconds * 16_000))
        assert isinstance(adapter, TextAdapterConfig)
        return torch.randint(4, adapter.vocabulary_size, (batch, self.tokens))


def _without_layer_drop(config: Data2VecConfig) -> Data2VecConfig:
    student = config.student
    adapters = {
        name: one if one.context is None else attrs.evolve(one, context=attrs.evolve(one.context, layer_drop=0.0))
        for name, one in student.adapters.items()
    }
    encoder = attrs.evolve(student.encoder, layer_drop=0.0)
    return attrs.evolve(config, student=attrs.evolve(student, encoder=encoder, adapters=adapters))


def _of_depth(config: Data2VecConfig, depth: int) -> Data2VecConfig:
    encoder, layers = attrs.evolve(config.student.encoder, depth=depth), config.targets.layers
    assert isinstance(layers, int)
    return attrs.evolve(
        config,
        student=attrs.evolve(config.student, encoder=encoder),
        targets=attrs.evolve(config.targets, layers=min(layers, depth)),
    )


def _smaller(config: Data2VecConfig) -> Data2VecConfig:
    """Return the same composition with two narrow blocks."""
    (modality, adapter), encoder = next(iter(config.student.adapters.items())), config.student.encoder
    if isinstance(adapter, ImageAdapterConfig):
        adapter = attrs.evolve(adapter, image_size=(4 * adapter.patch_size[0],) * 2)
    if isinstance(adapter, TextAdapterConfig):
        adapter = attrs.evolve(adapter, vocabulary_size=50)
    if adapter.context is not None:
        adapter = attrs.evolve(adapter, context=attrs.evolve(adapter.context, depth=min(1, adapter.context.depth)))
    block = attrs.evolve(encoder.block, embed_dim=_TOY_DIM, num_heads=4)
    decoder = attrs.evolve(config.predictors[modality], decoder_dim=_TOY_DIM, num_layers=2)
    return attrs.evolve(
        config,
        student=attrs.evolve(
            config.student, encoder=attrs.evolve(encoder, block=block, depth=2), adapters={modality: adapter}
        ),
        predictors={modality: decoder},
        targets=attrs.evolve(config.targets, layers=2),
        num_masks=2,
    )


def library_step(
    case: Case,
    batch: int,
    device: str,
    *,
    precision: Precision = "fp32",
    compiled: bool = False,
    kernels: tuple[str, ...] = PLAIN,
    prepare: Callable[[Data2Vec], None] = lambda model: None,
    phase: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext(),
) -> Step:
    """Return the library's training step: masks, loss, gradients, clipping, optimiser, teacher.

    Args:
        case: model and size of its input.
        batch: number of samples.
        device: device to train on.
        precision: of the forward pass.
        compiled: whether parts of the model are compiled.
        kernels: as `train.kernels`.
        prepare: called with the model before the first step.
        phase: returns the context of the backward pass, the optimiser with clipping, and the average.
    """
    model = case.config.build().to(device).train()
    use_kernels(model, kernels, recorded=None, precision=precision)
    prepare(model)
    if compiled:
        compile_parts(model)
    optimizer = PublishedAdamW(parameter_groups(model, weight_decay=0.05, decay="all"), lr=1e-4)
    source, count, place = case.samples(batch).to(device), 0, torch.device(device)

    def step() -> None:
        nonlocal count
        optimizer.zero_grad()  # before the forward pass, so that old gradients and activations do not add up
        with keeping_less(), autocast(precision, place):
            out = model(Batch(source=source), update=count)
        with phase("backward"):
            (out.loss_sum / out.sample_size).backward()
        with phase("optimiser"):
            torch.nn.utils.clip_grad_norm_(model.student.parameters(), _CLIP)
            optimizer.step()
        count += 1
        with phase("average"):
            model.update_teacher(count)

    return step


def compile_parts(model: Data2Vec, mode: str | None = None) -> None:
    """Compile the parts that the library supports compiling: each block, and the decoder."""
    for backbone in (model.student, model.teacher.module):
        for block in backbone.encoder.blocks:
            block.compile(dynamic=False, fullgraph=True, mode=mode)
        for adapter in () if backbone.adapters is None else backbone.adapters.values():
            context = None if adapter is None else adapter.context  # a teacher may have neither
            for block in () if context is None else context.blocks:
                block.compile(dynamic=False, fullgraph=True, mode=mode)
    for predictor in model.predictors.values():
        predictor.decoder.compile(dynamic=False, fullgraph=True, mode=mode)


def plain_step(case: Case, batch: int, device: str, *, precision: Precision = "fp32") -> Step:
    """Return the same training step in plain formulas."""
    import plain

    model, foreign, student, teacher = plain_model(case, device)
    cached = mock.patch.object(plain, "alibi", _cached(plain.alibi, torch.device(device)))  # the original caches it too
    learned = [p for p in student.values() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    at = "blocks." if foreign["ema_encoder_only"] else ""
    averaged = [name for name in teacher if plain.trainable(foreign, at + name)]
    averages, sources = [teacher[name] for name in averaged], [student[at + name] for name in averaged]
    source, count, place = case.samples(batch).to(device), 0, torch.device(device)
    decays = (foreign["ema_decay"], foreign["ema_end_decay"], foreign["ema_anneal_end_step"])

    def step() -> None:
        nonlocal count
        optimizer.zero_grad()
        mask = model.mask(Batch(source=source), case.positions(source), update=count).hidden
        with autocast(precision, place), cached:
            loss = plain.forward(foreign, student, teacher, {"source": source, "mask": mask})["loss.total"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, _CLIP)
        optimizer.step()
        count += 1
        with torch.no_grad():
            torch._foreach_lerp_(averages, sources, 1 - plain.decay_at(*decays, count))

    return step


def plain_model(case: Case, device: str) -> tuple[Data2Vec, dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """Return the library's model, whose maskers are used, and the original's configuration, student and teacher."""
    from plain import split

    model = case.config.build()
    converter = next(one for one in modalities.load(case.modality).converters if "2.0" in one.name)
    description = Description(model=case.config)
    one = Converted(model, description, converter.layout(description, {}))
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("teacher.")}
    tensors = one.student_names(state)
    teacher_tensors = one.teacher_names(model.teacher.module.state_dict())
    foreign = foreign_config(case)
    tensors |= {f"_ema.{name}": tensor.clone() for name, tensor in teacher_tensors.items()}
    student, teacher = split(foreign, {name: tensor.to(device) for name, tensor in tensors.items()})
    return model, foreign, student, teacher


def foreign_config(case: Case) -> dict[str, Any]:
    """Return the original's configuration of a case."""
    config, kind = case.config, {"vision": "image"}.get(case.modality, case.modality)
    decoder, adapter = config.predictors[case.modality], config.student.adapters[case.modality]
    assert isinstance(decoder, ConvDecoderConfig)
    model: dict[str, Any] = json.loads((PARITY / f"data/v2/{kind}_base/config.json").read_text())["model"]
    settings, encoder, schedule = model["modalities"][kind], config.student.encoder, config.teacher.schedule
    model |= {"embed_dim": encoder.embed_dim, "num_heads": encoder.num_heads, "depth": encoder.depth}
    model |= {"average_top_k_layers": config.targets.layers, "clone_batch": config.num_masks}
    model |= {f"{norm}_norm_target_layer": norm in config.targets.each for norm in ("instance", "layer")}
    model |= {f"{norm}_norm_targets": norm in config.targets.after for norm in ("instance", "layer")}
    model |= {"ema_decay": schedule.start, "ema_end_decay": schedule.end, "ema_anneal_end_step": schedule.anneal}
    settings |= {"num_alibi_heads": encoder.num_heads, "model_depth": encoder.depth}
    settings["prenet_depth"] = 0 if adapter.context is None else adapter.context.depth
    settings["decoder"] |= {"decoder_dim": decoder.decoder_dim, "decoder_groups": decoder.groups}
    settings["decoder"] |= {"decoder_kernel": decoder.kernel_size, "decoder_layers": decoder.num_layers}
    settings["decoder"]["input_dropout"], settings["mask_noise_std"] = decoder.dropout, decoder.noise_std
    block = encoder.block
    model |= {"attention_dropout": block.attention_dropout, "encoder_dropout": block.projection_dropout}
    model |= {"activation_dropout": block.activation_dropout, "post_mlp_drop": block.dropout}
    settings["prenet_dropout"] = 0.0 if adapter.context is None else adapter.context.dropout
    if isinstance(adapter, TextAdapterConfig):
        settings["dropout"] = adapter.embedding_dropout
    if isinstance(adapter, ImageAdapterConfig):
        settings |= {"input_size": adapter.image_size[0], "patch_size": adapter.patch_size[0]}
        settings["embed_dim"] = encoder.embed_dim
    if isinstance(adapter, WaveformAdapterConfig):
        settings["feature_encoder_spec"] = str(list(adapter.conv_layers))
    return model


def _cached(alibi: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """Return a function that computes the distance bias once for each number of heads and positions."""
    known: dict[tuple[int, int], Tensor] = {}

    def cached(model: Mapping[str, Any], positions: int) -> Tensor:
        size = (model["num_heads"], positions)
        if size not in known:
            known[size] = alibi(model, positions).float().to(device)
        return known[size]

    return cached
