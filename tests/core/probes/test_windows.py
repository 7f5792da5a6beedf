"""Long sequences in windows: every frame once, the centre of a window, equal features where nothing is global."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from d2v.core.model import Backbone, Batch, Local, ModalityAdapter
from d2v.core.nn import TransformerEncoder
from d2v.core.probes import Features, cut_windows, encode_layers, encode_windows
from d2v.core.probes.windows import Framed

STRIDE, KERNEL = 4, 10


class Front(nn.Module):
    """Means of the samples of each frame."""

    stride = STRIDE

    def num_frames(self, samples: int) -> int:
        return max(samples - KERNEL, -STRIDE) // STRIDE + 1

    def forward(self, batch: Batch) -> Local:
        frames = batch.source.unfold(1, KERNEL, STRIDE)
        lengths = None if batch.padding is None else ((~batch.padding).sum(1) - KERNEL) // STRIDE + 1
        padding = None if lengths is None else torch.arange(frames.shape[1]) >= lengths[:, None]
        return Local(x=frames[..., :8], padding=padding, grid=(frames.shape[1],))


class Near(nn.Module):
    """Positions that depend on three frames to each side."""

    reach = 3

    def forward(self, x: Tensor, mask: object) -> Tensor:
        out: Tensor = nn.functional.avg_pool1d(x.transpose(1, 2), 7, 1, 3).transpose(1, 2)
        return out


def backbone() -> Backbone:
    torch.manual_seed(0)
    encoder = TransformerEncoder.stack(8, depth=2, num_heads=2)
    for block in encoder.blocks:
        nn.init.zeros_(block.attn.proj.weight)  # nothing is passed between frames
        nn.init.zeros_(block.attn.proj.bias)
    return Backbone({"input": ModalityAdapter(Front(), positions=Near())}, encoder)


@given(samples=st.integers(1, 400), window=st.integers(20, 120), margin=st.integers(0, 6))
def test_every_frame_is_used_once(samples: int, window: int, margin: int) -> None:
    front = Front()
    assert isinstance(front, Framed)
    if front.num_frames(window) - 2 * margin < 1:
        with pytest.raises(ValueError, match="window"):
            cut_windows(front, samples, window=window, margin=margin)
        return
    windows = cut_windows(front, samples, window=window, margin=margin)
    used = [one.start // STRIDE + frame for one in windows for frame in range(one.first, one.last)]
    assert used == list(range(front.num_frames(samples)))
    for one in windows:
        assert one.start % STRIDE == 0
        assert one.stop - one.start <= window
        assert one.last <= front.num_frames(one.stop - one.start)
        assert one.first == (0 if one.start == 0 else margin)
        at_the_end = one.start // STRIDE + front.num_frames(one.stop - one.start) == front.num_frames(samples)
        assert at_the_end or one.last <= front.num_frames(one.stop - one.start) - margin


def whole(features: Iterator[Features], pooling: str) -> list[Tensor]:
    return [row for part in features for row in part.values["all"][pooling]]


@pytest.mark.parametrize("pooling", ["tokens", "mean", "grid"])
def test_without_attention_windows_give_the_features_of_the_whole(pooling: str) -> None:
    encoder = backbone()
    batches = [Batch(source=torch.randn(2, samples)) for samples in (300, 64, 31)]
    expected = whole(encode_layers(encoder, batches, poolings=[pooling]), pooling)
    found = whole(encode_windows(encoder, batches, window=64, pooling=pooling), pooling)
    assert len(found) == 6
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_padding_is_left_out_and_samples_keep_their_ids_and_labels() -> None:
    encoder, source = backbone(), torch.randn(2, 300)
    padding = torch.arange(300) >= torch.tensor([[300], [150]])
    batch = Batch(source=source, padding=padding, ids=torch.tensor([7, 3]), labels=torch.tensor([1, 0]))
    parts = list(encode_windows(encoder, [batch, batch], window=64, pooling="tokens"))
    assert [int(part.ids) for part in parts] == [7, 3, 7, 3]
    assert [int(part.labels) for part in parts if part.labels is not None] == [1, 0, 1, 0]
    alone = next(encode_windows(encoder, [Batch(source=source[1:, :150])], window=64, pooling="tokens"))
    torch.testing.assert_close(parts[1].values["all"]["tokens"], alone.values["all"]["tokens"])


def test_what_cannot_be_read_in_windows_is_refused() -> None:
    encoder, batch = backbone(), Batch(source=torch.randn(1, 300))
    with pytest.raises(ValueError, match="window"):
        next(encode_windows(encoder, [batch], window=30))
    with pytest.raises(ValueError, match="class-token"):
        next(encode_windows(encoder, [batch], window=64, pooling="class-token"))

    class Other(nn.Module):
        def forward(self, batch: Batch) -> Local:
            return Local(x=batch.source[..., None], padding=None, grid=batch.source.shape[1:2])

    other = Backbone({"input": ModalityAdapter(Other())}, TransformerEncoder.stack(1, depth=1, num_heads=1))
    with pytest.raises(ValueError, match="stride"):
        next(encode_windows(other, [batch], window=64))
