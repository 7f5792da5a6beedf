"""What a speech adapter is made of."""

from attrs import field, frozen

from d2v.audio.positions import ConvPositions
from d2v.audio.waveform import ConvSpec, ExtractorNorm, WaveformExtractor, WaveformFront
from d2v.core.model import AlibiConfig, ContextConfig, EncoderConfig, ExtraTokens, MaskToken, ModalityAdapter

WAV2VEC_LAYERS: tuple[ConvSpec, ...] = ((512, 10, 5), *[(512, 3, 2)] * 4, *[(512, 2, 2)] * 2)  # 20 ms frames at 16 kHz


@frozen(kw_only=True)
class WaveformAdapterConfig:
    """Adapter of raw waveforms; the defaults are those of the 2.0 models.

    Args:
        conv_layers: (channels, kernel, stride) of each convolution of the extractor.
        extractor_norm: "layer", or "group" after the first convolution.
        conv_bias: whether the extractor's convolutions have a bias.
        gradient_scale: factor of the gradient that reaches the extractor.
        positions_width: of the convolutional positions; see `ConvPositions`.
        positions_depth: number of convolutions.
        positions_groups: of each.
        alibi: distance bias, or None.
        extra_tokens: e.
        first_token_zero: whether the first extra token starts at zero.
        mask_token: whether there is a learned vector for hidden frames that are kept.
        context: what runs before the shared encoder, or None.
        dropout: on the features, before masking.
        noise_std: without mask token, the noise put at hidden frames that are kept.
        channels_first: whether hidden channels are zeroed before the mask token is put in.
        zero_padding: whether padded frames are set to zero (1.0).
    """

    conv_layers: tuple[ConvSpec, ...] = WAV2VEC_LAYERS
    extractor_norm: ExtractorNorm = "layer"
    conv_bias: bool = False
    gradient_scale: float = 1.0
    positions_width: int = 95
    positions_depth: int = 5
    positions_groups: int = 16
    alibi: AlibiConfig | None = field(factory=AlibiConfig)
    extra_tokens: int = 0
    first_token_zero: bool = True
    mask_token: bool = False
    context: ContextConfig | None = field(factory=ContextConfig)
    dropout: float = 0.0
    noise_std: float = 0.0
    channels_first: bool = False
    zero_padding: bool = False

    @property
    def dims(self) -> int:
        """Axes of the grid."""
        return 1

    @property
    def pixel_dim(self) -> int:
        """None: waveforms are not reconstructed."""
        return 0

    def build(self, encoder: EncoderConfig) -> ModalityAdapter:
        """The adapter for a shared encoder."""
        dim, heads = encoder.block.dim, encoder.block.num_heads
        num_layers = encoder.depth + (0 if self.context is None else self.context.depth)
        extractor = WaveformExtractor(self.conv_layers, norm=self.extractor_norm, bias=self.conv_bias)
        return ModalityAdapter(
            WaveformFront(extractor, dim=dim, gradient_scale=self.gradient_scale),
            positions=ConvPositions(
                dim, width=self.positions_width, depth=self.positions_depth, groups=self.positions_groups
            ),
            bias=None if self.alibi is None else self.alibi.build(num_heads=heads, num_layers=num_layers),
            extra_tokens=ExtraTokens(self.extra_tokens, dim, first_zero=self.first_token_zero)
            if self.extra_tokens
            else None,
            mask_token=MaskToken(dim) if self.mask_token else None,
            context=None if self.context is None else self.context.build(encoder),
            dropout=self.dropout,
            noise_std=self.noise_std,
            channels_first=self.channels_first,
            zero_padding=self.zero_padding,
        )
