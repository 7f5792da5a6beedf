"""Converters of the original toolkit's published speech models: pretrained and fine-tuned, 2.0 and 1.0."""

from collections.abc import Mapping
from typing import Any

from d2v.audio.config import WaveformAdapterConfig
from d2v.audio.conversion.fine_tuned import CTCReader, TaggingReader
from d2v.audio.conversion.former import FormerAudioFormat
from d2v.audio.conversion.hugging_face import converters as hugging_face
from d2v.audio.conversion.published import EXTRACTOR_NORMS, extractor_rules, read_conv_layers, recordings_data
from d2v.core.foreign import Converter, ForeignConfig, Rule, Shapes, both
from d2v.core.foreign.fairseq import (
    FineTunedFormat,
    MultimodalFormat,
    read_alibi,
    read_block_masks,
    read_context,
    read_noise,
)
from d2v.core.masks import Masker
from d2v.core.model import AdapterConfig, TransformerConfig


class _AudioReader:
    decoder_init = None

    def adapter(
        self, own: ForeignConfig, encoder: TransformerConfig, shapes: Shapes, prefix: str
    ) -> WaveformAdapterConfig:
        own.refuse_unless("conv_pos_pre_ln", False)
        own.refuse_unless("extractor_mode", *EXTRACTOR_NORMS)
        return WaveformAdapterConfig(
            conv_layers=read_conv_layers(own.get("feature_encoder_spec")),
            extractor_norm=EXTRACTOR_NORMS[own.get("extractor_mode")],
            gradient_scale=own.get("local_grad_mult"),
            positions_width=own.get("conv_pos_width"),
            positions_depth=own.count("conv_pos_depth"),
            positions_groups=own.get("conv_pos_groups"),
            alibi=read_alibi(own, axes=1),
            extra_tokens=own.get("num_extra_tokens"),
            first_token_zero=own.get("init_extra_token_zero"),
            context=read_context(own, encoder, shapes, prefix, always=True),
            noise_std=read_noise(own),
        )

    def masker(self, own: ForeignConfig) -> Masker:
        return read_block_masks(own)

    def data(self, adapter: AdapterConfig, foreign: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return recordings_data(foreign)

    def rules(self, adapter: AdapterConfig, theirs: str, ours: str) -> list[Rule]:
        assert isinstance(adapter, WaveformAdapterConfig)
        rules = extractor_rules(adapter, f"{theirs}.local_encoder", f"{ours}.front.extractor")
        rules += both(f"{theirs}.project_features.1", f"{ours}.front.norm")
        rules += both(f"{theirs}.project_features.2", f"{ours}.front.proj")
        for i in range(adapter.positions_depth):
            rules += both(f"{theirs}.relative_positional_encoder.{i + 1}.0", f"{ours}.positions.convs.{i}")
        return rules


_NEW, _FORMER = MultimodalFormat("data2vec 2.0 speech", "audio", "AUDIO", _AudioReader()), FormerAudioFormat()

converters: tuple[Converter, ...] = (
    _NEW,
    _FORMER,
    *(FineTunedFormat(one, reader) for one in (_NEW, _FORMER) for reader in (CTCReader(), TaggingReader())),
    *hugging_face,
)
