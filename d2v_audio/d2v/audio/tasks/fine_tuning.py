"""Settings that the tasks of audio models share: dropout and masks in fine-tuning, and what is trained."""

from typing import Any, ClassVar

import attrs
import torch
from attrs import field, frozen

from d2v.core.masks import ChannelMasker, Masker, SpanMasker
from d2v.core.model import BackboneConfig, StudentConfig, TransformerConfig
from d2v.core.validators import not_negative, probability


@frozen(kw_only=True)
class FineTuningParts:
    """Settings that tasks of audio models share; they replace those of pretraining, so that a default of 0 is 0.

    Args:
        dropout: dropout after attention and after the feed-forward network, and at the input of the blocks.
        attention_dropout: dropout of the attention weights.
        activation_dropout: dropout after the activation of the feed-forward network.
        input_dropout: dropout of the local features (1.0), or before the shared blocks (2.0).
        final_dropout: dropout of the frames before the linear layer.
        layer_drop: probability that a block is skipped in training.
        mask: masks of frames in training; null = none. Hidden frames become the mask token (1.0) or noise (2.0), and
            are kept.
        channel_mask: masks of channels in training, zeros in all frames of a sample; published: spans, `min_masks` 0.
        channels_first: whether channels are masked before the frames, so that the mask token is not.
        mask_noise_std: standard deviation of the noise in hidden frames of models without mask token; 0 = zeros.
        gradient_scale: factor of the gradient that reaches the convolutions; 0 = they are not trained.
        learned_alibi: whether the scales of the distance bias are trained.
    """

    modality: ClassVar[str] = "audio"

    dropout: float = field(default=0.0, validator=probability)
    attention_dropout: float = field(default=0.0, validator=probability)
    activation_dropout: float = field(default=0.0, validator=probability)
    input_dropout: float = field(default=0.0, validator=probability)
    final_dropout: float = field(default=0.0, validator=probability)
    layer_drop: float = field(default=0.0, validator=probability)
    mask: Masker | None = None
    channel_mask: Masker | None = None
    channels_first: bool = False
    mask_noise_std: float = field(default=0.01, validator=not_negative)
    gradient_scale: float = field(default=0.0, validator=not_negative)
    learned_alibi: bool = True

    def adapt(self, config: StudentConfig) -> StudentConfig:
        """Return the encoder with these settings; a third-party encoder is unchanged.

        The published code sets fields by name, and its two generations name dropouts of different places alike. A mask
        token tells 1.0 models.
        """
        if not isinstance(config, BackboneConfig) or not isinstance(config.encoder, TransformerConfig):
            return config
        adapter: Any = config.adapters[self.modality]
        has_token: bool = getattr(adapter, "mask_token", False)
        block = attrs.evolve(
            config.encoder.block,
            attention_dropout=self.attention_dropout,
            projection_dropout=self.dropout,
            activation_dropout=self.activation_dropout,
            branch_dropout=0.0 if has_token else self.activation_dropout,
            dropout=self.dropout,
        )
        encoder = attrs.evolve(
            config.encoder,
            block=block,
            dropout=self.dropout if has_token else self.input_dropout,
            layer_drop=self.layer_drop,
        )
        context, alibi = getattr(adapter, "context", None), getattr(adapter, "alibi", None)
        adapter = _evolved(
            adapter,
            dropout=self.input_dropout if has_token else 0.0,
            noise_std=0.0 if has_token else self.mask_noise_std,
            channels_first=self.channels_first,
            gradient_scale=self.gradient_scale,
            alibi=alibi and attrs.evolve(alibi, learned=self.learned_alibi),
            context=context and attrs.evolve(context, dropout=self.dropout, layer_drop=self.layer_drop),
        )
        return attrs.evolve(config, encoder=encoder, adapters={**config.adapters, self.modality: adapter})

    def masker(self, embed_dim: int) -> Masker | None:
        """Return the masker of training for local features of width d; None = nothing is masked."""
        if self.channel_mask is None:
            return self.mask
        positions = SpanMasker(mask_prob=0.0, mask_length=1, min_masks=0) if self.mask is None else self.mask
        return ChannelMasker(positions=positions, channels=self.channel_mask, embed_dim=embed_dim)


def mask_seed() -> int:
    """Draw the seed of a module's masks from PyTorch's generator, which the seed of the run determines."""
    return int(torch.randint(1 << 31, ()))


def _evolved(config: Any, **values: Any) -> Any:
    """Change those fields that a configuration has: front ends differ in theirs."""
    known = {one.name for one in attrs.fields(type(config))}
    return attrs.evolve(config, **{name: value for name, value in values.items() if name in known})
