"""Waveforms to frames: the published front end of speech models."""

import torch
from torch import Tensor, nn

from d2v.audio.extractor import ConvExtractor
from d2v.core.model import Batch, Layout, Local
from d2v.core.nn.gradients import scale_gradient
from d2v.core.nn.inference import packed_weights
from d2v.core.nn.linear import Linear


class WaveformFront(nn.Module):
    """Front end for speech: convolutions over the waveform, norm, projection to the model's width.

    Args:
        extractor: the convolutions.
        embed_dim: d.
        norm_eps: epsilon of the norm.
        gradient_scale: factor of the gradient that reaches the convolutions; 0 = they are not trained.

    The adapter sets `padded_frames`, the number of padded frames after a recording that its other parts look at; None =
    all.

    >>> front = WaveformFront(ConvExtractor([(8, 10, 5), (8, 3, 2)]), embed_dim=16)
    >>> front(Batch(source=torch.zeros(2, 100))).x.shape
    torch.Size([2, 9, 16])
    """

    def __init__(
        self, extractor: ConvExtractor, *, embed_dim: int, norm_eps: float = 1e-5, gradient_scale: float = 1.0
    ) -> None:
        super().__init__()
        width = extractor.spec[-1][0]
        self.extractor = extractor
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.proj = Linear(width, embed_dim)
        self.gradient_scale = gradient_scale
        self.padded_frames: int | None = None

    def forward(self, batch: Batch) -> Local:
        """Features of waveforms `b s`.

        Raises:
            ValueError: if the source is not `b s` or is too short.
        """
        source = waveforms(batch)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient_scale > 0):
            frames = self.extractor(source[:, None], self._needed(batch.padding))
        x = self.proj(self.norm(scale_gradient(frames, self.gradient_scale)))
        return Local(x=x, padding=self._padding(batch.padding, x.shape[1]), grid=(x.shape[1],))

    def _needed(self, padding: Tensor | None) -> list[int] | None:
        """Numbers of frames that are not padding, or that later layers look at; None = all.

        Only where padding need not be computed: a device would have to be asked for these numbers.
        """
        if padding is None or self.padded_frames is None or packed_weights() is None:
            return None
        frames = self.extractor.frame_lengths((~padding).sum(1)).clamp(min=0)
        return (frames + self.padded_frames).tolist()

    def layout(self, batch: Batch) -> Layout:
        """Return the frames of waveforms `b s`, none if these are too short, and their padding.

        Raises:
            ValueError: if the source is not `b s`.
        """
        t = self.num_frames(waveforms(batch).shape[1])
        return Layout(grid=(t,), padding=self._padding(batch.padding, t))

    def _padding(self, padding: Tensor | None, t: int) -> Tensor | None:
        return None if padding is None else frame_padding(self.extractor.frame_lengths((~padding).sum(1)), t)

    def num_frames(self, samples: int) -> int:
        """Number of frames of a recording with `samples` samples."""
        return self.extractor.num_frames(samples)

    @property
    def stride(self) -> int:
        """Number of samples from the start of a frame to that of the next."""
        return self.extractor.stride


def waveforms(batch: Batch) -> Tensor:
    """The source of a batch.

    Raises:
        ValueError: if it is not `b s`.
    """
    if batch.source.dim() != 2:
        raise ValueError(f"waveforms must have shape b s, not {tuple(batch.source.shape)}; mix channels down to one")
    return batch.source


def frame_padding(lengths: Tensor, num_frames: int) -> Tensor:
    """Padding Bool `b t` of rows with these numbers of frames, right-padded to `num_frames`.

    >>> frame_padding(torch.tensor([3, 1]), 3)
    tensor([[False, False, False],
            [False,  True,  True]])
    """
    return torch.arange(num_frames, device=lengths.device) >= lengths[:, None]
