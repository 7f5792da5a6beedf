"""Adapters for recordings: waveforms (published) and log-mel spectrograms."""

from collections.abc import Sequence
from typing import TypedDict, Unpack

from torch import nn

from d2v.audio.extractor import WAV2VEC_LAYERS, ConvExtractor, ConvSpec, ExtractorNorm
from d2v.audio.log_mel import LogMel, LogMelFront
from d2v.audio.positions import ConvPositions
from d2v.audio.waveform import WaveformFront
from d2v.core.model import ExtraTokens, MaskToken, ModalityAdapter
from d2v.core.model.adapter import Context, as_context


class AudioParts(TypedDict, total=False):
    """Options of every `AudioAdapter`, which describes them."""

    positions_width: int
    positions_depth: int
    positions_groups: int
    extra_tokens: int
    extra_tokens_std: float
    first_token_zero: bool
    mask_token: bool
    bias: nn.Module | None
    context: Context
    dropout: float
    noise_std: float
    channels_first: bool
    zero_padding: bool


class AudioAdapter(ModalityAdapter):
    """Convert recordings to tokens by a front end and convolutional positions.

    The defaults are those of the 2.0 models, which also have an `Alibi` bias. `ModalityAdapter` describes the parts.

    Args:
        front: front end, such as `WaveformFront`, with the method `num_frames`.
        embed_dim: d.
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

    Raises:
        ValueError: if `positions_groups` does not divide d.
    """

    modality = "audio"

    def __init__(
        self,
        front: WaveformFront | LogMelFront,
        *,
        embed_dim: int,
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
    ) -> None:
        positions = ConvPositions(embed_dim, width=positions_width, depth=positions_depth, groups=positions_groups)
        if isinstance(front, WaveformFront):
            front.padded_frames = 0 if zero_padding else positions.reach
        tokens = ExtraTokens.of(extra_tokens, embed_dim, std=extra_tokens_std, first_zero=first_token_zero)
        super().__init__(
            front,
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


class WaveformAdapter(AudioAdapter):
    """Convert waveforms to tokens, as all published speech models do.

    Args:
        embed_dim: d.
        conv_layers: (channels, kernel, stride) of each convolution of the extractor; the default makes frames of 20 ms
            at 16 kHz.
        extractor_norm: "layer", or "group" after the first convolution.
        conv_bias: whether the extractor's convolutions have a bias.
        norm_eps: epsilon of the norm between extractor and projection.
        gradient_scale: factor of the gradient that reaches the extractor; 0 = it is not trained.
        parts: see `AudioAdapter`.

    Raises:
        ValueError: if `positions_groups` does not divide d, or `extractor_norm` is unknown.

    >>> import torch
    >>> from d2v.core import Batch
    >>> adapter = WaveformAdapter(embed_dim=16)
    >>> adapter.front(Batch(source=torch.zeros(2, 16000))).x.shape
    torch.Size([2, 49, 16])
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        conv_layers: Sequence[ConvSpec] = WAV2VEC_LAYERS,
        extractor_norm: ExtractorNorm = "layer",
        conv_bias: bool = False,
        norm_eps: float = 1e-5,
        gradient_scale: float = 1.0,
        **parts: Unpack[AudioParts],
    ) -> None:
        extractor = ConvExtractor(conv_layers, norm=extractor_norm, bias=conv_bias)
        front = WaveformFront(extractor, embed_dim=embed_dim, norm_eps=norm_eps, gradient_scale=gradient_scale)
        super().__init__(front, embed_dim=embed_dim, **parts)


class LogMelAdapter(AudioAdapter):
    """Convert waveforms to tokens by way of log-mel energies; ours, not published.

    Args:
        embed_dim: d.
        conv_layers: (channels, kernel, stride) of each convolution over the frames of the spectrogram; the default
            makes frames of 40 ms.
        sample_rate: of the recordings, in Hz.
        num_bands: number of bands.
        window: length of the Hann window, in seconds.
        hop: time from one window to the next, in seconds.
        min_frequency: lower edge of the first band, in Hz.
        gradient_scale: factor of the gradient that reaches the whole front end; 0 = it keeps its initial weights.
        parts: see `AudioAdapter`.

    Raises:
        ValueError: if a number is out of its range, or `positions_groups` does not divide d.

    >>> import torch
    >>> from d2v.core import Batch
    >>> adapter = LogMelAdapter(embed_dim=16)
    >>> adapter.front(Batch(source=torch.zeros(2, 16000))).x.shape
    torch.Size([2, 23, 16])
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        conv_layers: Sequence[ConvSpec] = ((128, 3, 2), (128, 3, 2)),
        sample_rate: int = 16_000,
        num_bands: int = 40,
        window: float = 0.025,
        hop: float = 0.01,
        min_frequency: float = 40.0,
        gradient_scale: float = 0.0,
        **parts: Unpack[AudioParts],
    ) -> None:
        spectrogram = LogMel(
            sample_rate=sample_rate,
            num_bands=num_bands,
            window=window,
            hop=hop,
            min_frequency=min_frequency,
        )
        extractor = ConvExtractor(conv_layers, in_channels=num_bands)
        front = LogMelFront(spectrogram, extractor, embed_dim=embed_dim, gradient_scale=gradient_scale)
        super().__init__(front, embed_dim=embed_dim, **parts)
