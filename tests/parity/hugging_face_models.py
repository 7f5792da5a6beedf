"""Random models of the classes of the transformers package, and their folders."""

import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import (
    Data2VecAudioConfig,
    PreTrainedModel,
)


def written(path: Path, model: PreTrainedModel, *, pickled: bool = False) -> PreTrainedModel:
    """A model with random weights everywhere, saved as its users do, or as older versions did."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for one in model.parameters():
            one.copy_(torch.randn(one.shape, generator=generator) * 0.3 + (1 if one.dim() == 1 else 0))
    model.eval().save_pretrained(path)
    if pickled:
        torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
        (path / "model.safetensors").unlink()
    return model


def audio_config(draw: random.Random, **fields: Any) -> Data2VecAudioConfig:
    heads, layers = draw.choice([1, 2, 4]), draw.choice([2, 3])
    return Data2VecAudioConfig(
        hidden_size=heads * 8,
        num_hidden_layers=draw.choice([1, 3]),
        num_attention_heads=heads,
        intermediate_size=draw.choice([20, 33]),
        hidden_act=draw.choice(["gelu", "relu"]),
        conv_dim=[draw.choice([6, 8])] * layers,
        conv_kernel=[10, 3, 2][:layers],
        conv_stride=[5, 2, 2][:layers],
        conv_bias=draw.choice([True, False]),
        num_conv_pos_embeddings=draw.choice([2, 5]),
        conv_pos_kernel_size=draw.choice([4, 7, 19]),
        num_conv_pos_embedding_groups=draw.choice([2, 4]),
        layer_norm_eps=draw.choice([1e-5, 1e-2]),
        apply_spec_augment=False,
        attn_implementation="eager",
        **fields,
    )


def text_config(draw: random.Random, **fields: Any) -> dict[str, Any]:
    heads = draw.choice([1, 2, 4])
    return {
        "vocab_size": draw.choice([40, 60]),
        "hidden_size": heads * 8,
        "num_hidden_layers": draw.choice([1, 3]),
        "num_attention_heads": heads,
        "intermediate_size": draw.choice([20, 33]),
        "hidden_act": draw.choice(["gelu", "relu", "gelu_new"]),
        "max_position_embeddings": draw.choice([30, 40]),
        "type_vocab_size": draw.choice([1, 2]),
        "layer_norm_eps": draw.choice([1e-12, 1e-2]),
        "pad_token_id": 1,
        "attn_implementation": "eager",
    } | fields


def vision_config(draw: random.Random, **fields: Any) -> dict[str, Any]:
    heads, patch = draw.choice([1, 2, 4]), draw.choice([4, 8])
    return {
        "hidden_size": heads * 8,
        "num_hidden_layers": draw.choice([1, 3]),
        "num_attention_heads": heads,
        "intermediate_size": draw.choice([20, 33]),
        "image_size": 4 * patch,
        "patch_size": patch,
        "num_channels": draw.choice([1, 3]),
        "use_mask_token": draw.choice([True, False]),
        "use_absolute_position_embeddings": draw.choice([True, False]),
        "use_relative_position_bias": draw.choice([True, False]),
        "use_shared_relative_position_bias": draw.choice([True, False]),
        "layer_scale_init_value": draw.choice([0.0, 0.1]),
        "use_mean_pooling": draw.choice([True, False]),
        "layer_norm_eps": draw.choice([1e-12, 1e-2]),
        "attn_implementation": "eager",
    } | fields


def agree(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
