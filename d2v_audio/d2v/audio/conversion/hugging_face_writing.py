"""Speech models as Data2VecAudio of Hugging Face: heads, and values of the files of a folder."""

from typing import Any

import torch
from torch import Tensor, nn

from d2v.audio.config import WaveformAdapterConfig
from d2v.audio.tasks.classification import AudioClassification
from d2v.audio.tasks.ctc import CTC
from d2v.core.description import Description
from d2v.core.foreign import hugging_face
from d2v.core.labels import Classes, Symbols
from d2v.core.model import BackboneConfig, TransformerConfig

_MEANS = ("mean", "mean-features", "projected-mean")


def head_of(module: nn.Module, description: Description) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """Class, tensors outside of the encoder, and fields.

    Raises:
        ValueError: if no class has this head.
    """
    task, labels, own = description.task, description.labels, module.state_dict()
    if isinstance(task, CTC) and isinstance(labels, Symbols) and not task.blank_weight:
        tensors = {f"lm_head.{part}": own[f"proj.{part}"] for part in ("weight", "bias")}
        return "Data2VecAudioForCTC", tensors, {"vocab_size": labels.num_outputs, "pad_token_id": labels.blank_number}
    if isinstance(task, AudioClassification) and isinstance(labels, Classes) and task.pooling in _MEANS:
        weight = own["head.proj.weight"]
        width = weight.shape[1]
        tensors = {f"classifier.{part}": own[f"head.proj.{part}"] for part in ("weight", "bias")}
        tensors["projector.weight"] = own.get("head.features.weight", torch.eye(width))
        tensors["projector.bias"] = own.get("head.features.bias", torch.zeros(width))
        fields = hugging_face.labels_config(labels.names) | {"classifier_proj_size": width}
        return "Data2VecAudioForSequenceClassification", tensors, fields
    raise ValueError(f"no class of Hugging Face has the head of this {type(task).__name__}")


def config_of(student: BackboneConfig) -> dict[str, Any]:
    """Fields of the encoder.

    Raises:
        ValueError: if it is not a 1.0 model of waveforms.
    """
    encoder, adapter = student.encoder, student.adapters["audio"]
    assert isinstance(encoder, TransformerConfig)
    if not isinstance(adapter, WaveformAdapterConfig) or not adapter.mask_token or not encoder.norm_in:
        raise ValueError("no class of Hugging Face computes the same: Data2VecAudio is the 1.0 model of waveforms")
    block, (dims, kernels, strides) = encoder.block, zip(*adapter.conv_layers, strict=True)
    return {
        "hidden_size": block.embed_dim,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": block.num_heads,
        "intermediate_size": int(block.embed_dim * block.mlp_ratio + 1e-6),
        "hidden_act": block.activation,
        "layer_norm_eps": block.norm_eps,
        "hidden_dropout": block.dropout,
        "attention_dropout": block.attention_dropout,
        "activation_dropout": block.activation_dropout,
        "feat_proj_dropout": adapter.dropout,
        "layerdrop": encoder.layer_drop,
        "conv_dim": list(dims),
        "conv_kernel": list(kernels),
        "conv_stride": list(strides),
        "conv_bias": adapter.conv_bias,
        "num_feat_extract_layers": len(dims),
        "num_conv_pos_embeddings": adapter.positions_depth,
        "conv_pos_kernel_size": max(3, adapter.positions_width // adapter.positions_depth),
        "num_conv_pos_embedding_groups": adapter.positions_groups,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def preprocessor(description: Description) -> dict[str, bytes]:
    """The file that says how recordings are prepared."""
    data = description.data.get("audio", {})
    values = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": data.get("sample_rate", 16_000),
        "do_normalize": data.get("normalize", True),
        "padding_value": 0.0,
        "return_attention_mask": True,
    }
    return {"preprocessor_config.json": hugging_face.as_json(values)}


def vocabulary(description: Description) -> dict[str, bytes]:
    """Files of the tokenizer of a CTC model; its padding is the blank."""
    labels = description.labels
    if not isinstance(labels, Symbols) or labels.blank is None:
        return {}
    tokens = {"pad_token": labels.blank, "unk_token": labels.unknown or labels.blank}
    tokens |= {"word_delimiter_token": labels.boundary or "|", "tokenizer_class": "Wav2Vec2CTCTokenizer"}
    vocabulary = {symbol: number for number, symbol in enumerate(labels.symbols)}
    return {"vocab.json": hugging_face.as_json(vocabulary), "tokenizer_config.json": hugging_face.as_json(tokens)}
