"""What a speech adapter is made of."""

from attrs import field, frozen

from d2v.audio.positions import ConvPositions
from d2v.audio.waveform import ConvSpec, ExtractorNorm, WaveformExtractor, WaveformFront
from d2v.core.model import AdapterParts, AlibiConfig, EncoderConfig, MaskToken, ModalityAdapter

WAV2VEC_LAYERS: tuple[ConvSpec, ...] = ((512, 10, 5), *[(512, 3, 2)] * 4, *[(512, 2, 2)] * 2)  # 20 ms frames at 16 kHz


@frozen(kw_only=True)
class WaveformAdapterConfig(AdapterParts):
    """Adapter of raw waveforms; the defaults are those of the 2.0 models. See `AdapterParts` for the common fields.

    Args:
        conv_layers: (channels, kernel, stride) of each convolution of the extractor.
        extractor_norm: "layer", or "group" after the first convolution.
        conv_bias: whether the extractor's convolutions have a bias.
        positions_width: of the convolutional positions; see `ConvPositions`.
        positions_depth: number of convolutions.
        positions_groups: of each.
        mask_token: whether there is a learned vector for hidden frames that are kept.
        dropout: on the features, before masking.
        channels_first: whether hidden channels are zeroed before the mask token is put in.
        zero_padding: whether padded frames are set to zero (1.0).

    >>> from d2v.core.model import BlockConfig, TransformerConfig
    >>> encoder = TransformerConfig(block=BlockConfig(embed_dim=16, num_heads=2), depth=1)
    >>> adapter = WaveformAdapterConfig(conv_layers=((8, 10, 5),), positions_groups=4).build(encoder)
    >>> adapter.front.extractor.num_frames(100)
    19
    """

    conv_layers: tuple[ConvSpec, ...] = WAV2VEC_LAYERS
    extractor_norm: ExtractorNorm = "layer"
    conv_bias: bool = False
    positions_width: int = 95
    positions_depth: int = 5
    positions_groups: int = 16
    alibi: AlibiConfig | None = field(factory=AlibiConfig)
    mask_token: bool = False
    dropout: float = 0.0
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
        embed_dim = encoder.embed_dim
        extractor = WaveformExtractor(self.conv_layers, norm=self.extractor_norm, bias=self.conv_bias)
        positions = ConvPositions(
            embed_dim, width=self.positions_width, depth=self.positions_depth, groups=self.positions_groups
        )
        return ModalityAdapter(
            WaveformFront(extractor, embed_dim=embed_dim, gradient_scale=self.gradient_scale),
            positions=positions,
            mask_token=MaskToken(embed_dim) if self.mask_token else None,
            dropout=self.dropout,
            channels_first=self.channels_first,
            zero_padding=self.zero_padding,
            **self.parts(encoder),
        )
