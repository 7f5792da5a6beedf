"""A piece and its configuration have the same defaults, whatever the piece: one of them would be wrong otherwise."""

import importlib
import inspect
import pkgutil
from typing import Any

import attrs
import pytest
import torch
from torch import nn

import d2v.audio
import d2v.core
import d2v.text
import d2v.vision
from d2v.audio import WaveformAdapter, WaveformAdapterConfig
from d2v.core.model import BlockConfig, ModalityAdapter, TransformerConfig
from d2v.core.nn import Alibi, TransformerEncoder
from d2v.text import TextAdapter, TextAdapterConfig
from d2v.vision import ImageAdapter, ImageAdapterConfig

# What a configuration alone can say by itself: a length as a fraction of the run, whether at all.
OWN = {
    ("TrainConfig", "sinks"),
    ("MonitorConfig", "warmup"),
    ("ValidationConfig", "every"),
    ("FreezeConfig", "patterns"),
}
# Parts that are made already where a piece takes them.
MADE = {"context", "norm_in", "norm_out"}


def configurations() -> list[type]:
    found: set[type] = set()
    for package in (d2v.core, d2v.vision, d2v.audio, d2v.text):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            names = vars(importlib.import_module(module.name))
            found |= {one for one in names.values() if isinstance(one, type) and "described_by" in vars(one)}
    return sorted(found, key=lambda one: one.__name__)


def defaults(config: type) -> dict[str, Any]:
    return {
        one.name: one.default.factory() if isinstance(one.default, attrs.Factory) else one.default  # type: ignore[arg-type]
        for one in attrs.fields(config)
        if one.default is not attrs.NOTHING
    }


@pytest.mark.parametrize("config", configurations(), ids=lambda one: one.__name__)
def test_a_configuration_has_the_defaults_of_what_it_makes(config: Any) -> None:
    said = defaults(config)
    both = 0
    for piece in config.described_by:
        for name, parameter in inspect.signature(piece).parameters.items():
            both += name in {one.name for one in attrs.fields(config)}
            if name not in said or name in MADE or (config.__name__, name) in OWN:
                continue
            if parameter.default is not inspect.Parameter.empty:
                assert parameter.default == said[name], (piece.__name__, name)
    assert both, "it is described by what it does not make"


DIM, HEADS = 32, 4
ENCODER = TransformerConfig(block=BlockConfig(embed_dim=DIM, num_heads=HEADS), depth=2)
ADAPTERS = {
    "vision": (
        ImageAdapter(image_size=8, patch_size=4, embed_dim=DIM),
        ImageAdapterConfig(image_size=8, patch_size=4),
    ),
    "audio": (WaveformAdapter(embed_dim=DIM, bias=Alibi(HEADS)), WaveformAdapterConfig()),
    "text": (TextAdapter(vocabulary_size=9, embed_dim=DIM), TextAdapterConfig(vocabulary_size=9)),
}


def looks(module: nn.Module) -> tuple[str, dict[str, torch.Size]]:
    return repr(module), {name: tensor.shape for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_by_itself_is_that_of_its_configuration(name: str) -> None:
    piece, config = ADAPTERS[name]
    assert isinstance(piece, ModalityAdapter)
    assert looks(piece) == looks(config.build(ENCODER))
    assert piece.modality == name


def test_a_stack_by_itself_is_that_of_its_configuration() -> None:
    assert looks(TransformerEncoder.stack(DIM, depth=2, num_heads=HEADS)) == looks(ENCODER.build())
