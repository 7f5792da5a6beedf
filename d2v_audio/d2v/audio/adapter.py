"""The adapter for waveforms."""

from collections.abc import Sequence

from torch import nn

from d2v.audio.positions import ConvPositions
from d2v.audio.waveform import WAV2VEC_LAYERS, ConvSpec, ExtractorNorm, WaveformExtractor, WaveformFront
from d2v.core.model import ExtraTokens, MaskToken, ModalityAdapter
from d2v.core.model.adapter import Context, as_context


class WaveformAdapter(ModalityAdapter):
    """Convert waveforms to tokens; the defaults are those of the 2.0 models, which also have an `Alibi` bias.

    `ModalityAdapter` describes the parts.

    Args:
        embed_dim: d.
        conv_layers: (channels, kernel, stride) of each convolution of the extractor; the default makes frames of 20 ms
            at 16 kHz.
        extractor_norm: "layer", or "group" after the first convolution.
        conv_bias: whether the extractor's convolutions have a bias.
        positions_width: total width of the convolutional positions; see `ConvPositions`.
        positions_depth: number of convolutions.
        positions_groups: groups of each convolution, divides d.
        extra_tokens: e; the last one is the class token.
        extra_tokens_std: standard deviation of their initial values.
        first_token_zero: whether the first extra token is initialised to zero.
        mask_token: whether there is a learned vector for hidden frames that are kept.
        bias: attention bias, such as `Alibi(num_heads)`, or None.
        context: layers before the shared encoder: "norm" = only a layer norm.
        dropout: dropout of the features, before masking.
        noise_std: standard deviation of the noise at hidden frames that are kept, if there is no mask token.
        channels_first: whether hidden channels are zeroed before the mask token is inserted.
        zero_padding: whether padded frames are set to zero (1.0).
        gradient_scale: factor of the gradient that reaches the extractor; 0 = it is not trained.

    Raises:
        ValueError: if `positions_groups` does not divide d, or `extractor_norm` is unknown.

    >>> import torch
    >>> from d2v.core import Batch
    >>> adapter = WaveformAdapter(embed_dim=16)
    >>> adapter.front(Batch(source=torch.zeros(2, 16000))).x.shape
    torch.Size([2, 49, 16])
    """

    modality = "audio"

    def __init__(
        self,
        *,
        embed_dim: int,
        conv_layers: Sequence[ConvSpec] = WAV2VEC_LAYERS,
        extractor_norm: ExtractorNorm = "layer",
        conv_bias: bool = False,
        positions_width: int = 95,
        positions_depth: int = 5,
        positions_groups: int = 16,
        extra_tokens: int = 0,
        extra_tokens_std: float = 1.0,
        first_token_zero: bool = False,
        mask_token: bool = False,
        bias: nn.Module | None = None,
        context: Context = "norm",
        dropout: float = 0.0,
        noise_std: float = 0.0,
        channels_first: bool = False,
        zero_padding: bool = False,
        gradient_scale: float = 1.0,
    ) -> None:
        extractor = WaveformExtractor(conv_layers, norm=extractor_norm, bias=conv_bias)
        positions = ConvPositions(embed_dim, width=positions_width, depth=positions_depth, groups=positions_groups)
        tokens = ExtraTokens.of(extra_tokens, embed_dim, std=extra_tokens_std, first_zero=first_token_zero)
        super().__init__(
            WaveformFront(extractor, embed_dim=embed_dim, gradient_scale=gradient_scale),
            positions=positions,
            mask_token=MaskToken(embed_dim) if mask_token else None,
            bias=bias,
            extra_tokens=tokens,
            context=as_context(context, embed_dim),
            dropout=dropout,
            noise_std=noise_std,
            channels_first=channels_first,
            zero_padding=zero_padding,
        )
