"""What every kind of case needs: a folder's tensors, a converted model, and what a run leaves behind."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from d2v.core.foreign import Converted, convert
from d2v.core.modality import modalities
from d2v.core.model import Encoded
from d2v.core.nn import LayerFeatures

Tensors = dict[str, Tensor]


def read(folder: Path) -> tuple[dict[str, Any], Tensors, Tensors]:
    """Configuration, model tensors, inputs and outputs."""
    config = json.loads((folder / "config.json").read_text())
    return config, load_file(folder / "model.safetensors"), load_file(folder / "io.safetensors")


def converted(model: Mapping[str, Any], tensors: Tensors) -> Converted:
    """The model that a user would get of the model's section of a configuration."""
    converters = [one for name in modalities.names() for one in modalities.load(name).converters]
    return convert(converters, {"model": model}, tensors)


def trainable_gradients(one: Converted) -> Tensors:
    """Gradients of everything but the teacher, by the file's names."""
    grads = {name: p.grad for name, p in one.model.named_parameters() if p.grad is not None}
    return one.student_names(grads)


def padding_of(encoded: Encoded) -> Tensor:
    """Padding without extra tokens; the library says None where nothing is padded."""
    padding = torch.zeros_like(encoded.x[..., 0], dtype=torch.bool) if encoded.padding is None else encoded.padding
    return padding[:, encoded.num_prefix_tokens :]


def named(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """The same tensors with a prefix."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def matching(tensors: Mapping[str, Tensor], *prefixes: str) -> Tensors:
    """The tensors whose names begin with one of the prefixes."""
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefixes)}


class Watch:
    """Keeps what goes into and comes out of modules during a run."""

    def __init__(self) -> None:
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}

    def on(self, name: str, module: nn.Module) -> None:
        """Keep the first input and the output of a module under a name."""
        module.register_forward_pre_hook(lambda _, args: self.inputs.__setitem__(name, args))
        module.register_forward_hook(lambda _, args, output: self.outputs.__setitem__(name, output))


def all_layers(depth: int, kind: str) -> LayerFeatures:
    """A sink that keeps every layer."""
    return LayerFeatures(range(depth), kind=kind)  # type: ignore[arg-type]


def scalar(value: float | Tensor, like: Tensor) -> Tensor:
    """A number in the shape and type of the file's tensor."""
    return torch.as_tensor(value).detach().to(like.dtype).reshape(like.shape)
