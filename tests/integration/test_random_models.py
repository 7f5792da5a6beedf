"""Models over random valid combinations of configurations take two steps."""

import dataclasses

import torch
from building import gradients, padding_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2v.audio import WaveformAdapterConfig
from d2v.core.loss import RegressionLoss
from d2v.core.masks import BlockMasker, ChannelMasker, InverseBlockMasker, RandomMasker, SpanMasker
from d2v.core.model import (
    AlibiConfig,
    BackboneConfig,
    Batch,
    BlockConfig,
    ContextConfig,
    ConvDecoderConfig,
    Data2VecConfig,
    MaskedHeadConfig,
    TargetsConfig,
    TeacherConfig,
    TransformerConfig,
)
from d2v.core.teacher import EMASchedule
from d2v.text import TextAdapterConfig
from d2v.vision import ImageAdapterConfig

DIM = 16
rare = st.sampled_from([0.0, 0.0, 0.1])
yes = st.booleans()
norms = st.lists(st.sampled_from(["batch", "instance", "group", "layer"]), max_size=2).map(tuple)
alibis = st.none() | st.builds(
    AlibiConfig, per_head=yes, per_layer=yes, learned=yes, scale=st.sampled_from([1.0, -0.5, 2.0]),
    distance=st.sampled_from(["manhattan", "euclidean"]),
)  # fmt: skip
blocks = st.builds(
    BlockConfig, embed_dim=st.just(DIM), num_heads=st.sampled_from([1, 2, 4]), mlp_ratio=st.sampled_from([4.0, 1.5]),
    norm=st.sampled_from(["post", "pre", "pre_lossy"]), norm_affine=yes,
    qkv_bias=st.sampled_from(["all", "qv", "none"]), layer_scale=st.sampled_from([None, 0.1]), attention_dropout=rare,
    projection_dropout=rare, activation_dropout=rare, branch_dropout=rare, dropout=rare,
)  # fmt: skip
schemes = st.sampled_from(["normal", "xavier", "scaled"])
rates = st.sampled_from([(0.0, 0.0), (0.0, 0.1), (0.2, 0.0)])
encoders = st.builds(
    TransformerConfig, block=blocks, depth=st.integers(1, 3), drop_path_rate=rates, norm_in=yes, norm_out=yes,
    norm_affine=yes, dropout=rare, init=schemes,
)  # fmt: skip
contexts = st.none() | st.builds(
    ContextConfig, depth=st.integers(0, 2), norm=yes, norm_affine=yes, dropout=rare, drop_path_rate=rates
)
decoders = st.builds(
    ConvDecoderConfig, decoder_dim=st.sampled_from([8, 16]), num_layers=st.integers(1, 3),
    kernel_size=st.integers(1, 5), groups=st.sampled_from([1, 4]), residual=yes, projection_layers=st.integers(1, 3),
    noise_std=st.sampled_from([0.0, 0.01]), dropout=rare, init=st.none() | schemes,
)  # fmt: skip
heads = st.builds(MaskedHeadConfig, num_layers=st.integers(0, 3), init=st.none() | schemes)
losses = st.builds(RegressionLoss, beta=st.sampled_from([0.0, 1.0]), scale=st.sampled_from([None, 0.5])) | st.builds(
    RegressionLoss, reduction=st.just("mean"), variance_weight=st.sampled_from([0.0, 0.1])
)
spans = st.builds(
    SpanMasker, mask_prob=st.just(0.4), mask_length=st.integers(1, 3), mask_dropout=rare,
    selection=st.sampled_from(["static", "uniform"]), mask_other=st.just(1.0),
)  # fmt: skip
inverse = st.builds(
    InverseBlockMasker,
    mask_prob=st.just(0.6),
    mask_length=st.integers(1, 3),
    mask_prob_adjust=st.just(0.1),
    inverse=yes,
)
random_positions = st.builds(RandomMasker, mask_prob=st.just(0.5), pad_aware=yes)
uneven = st.just(SpanMasker(mask_prob=0.4, mask_length=3, reach_end=True, equal_counts=False))


@st.composite
def images(draw, b, kept):
    size, alibi = draw(st.sampled_from([(16, 16), (8, 16)])), draw(alibis)
    adapter = ImageAdapterConfig(
        image_size=size, patch_size=4, width=draw(st.sampled_from([None, 12])), context=draw(contexts),
        positions=draw(st.sampled_from(["sincos", "learned", None])), alibi=alibi,
        relative_bias=None if alibi else draw(st.sampled_from([None, "shared", "layer", "both"])),
        extra_tokens=draw(st.integers(0, 2)),
        first_token_zero=draw(yes), mask_token=kept and draw(yes), noise_std=draw(rare),
    )  # fmt: skip
    masker = draw(
        inverse | random_positions | (st.just(BlockMasker(num_masked=4, min_per_block=2)) if kept else inverse)
    )
    return adapter, masker, Batch(source=torch.randn(b, 3, *size))


@st.composite
def waveforms(draw, b, kept):
    adapter = WaveformAdapterConfig(
        conv_layers=((8, 10, 5), (8, 3, 2)), extractor_norm=draw(st.sampled_from(["layer", "group"])),
        conv_bias=draw(yes), gradient_scale=draw(st.sampled_from([1.0, 0.1, 0.0])), positions_width=9,
        positions_depth=2, positions_groups=4, alibi=draw(alibis), extra_tokens=draw(st.integers(0, 1)),
        mask_token=kept and draw(yes), context=draw(contexts), dropout=draw(rare), noise_std=draw(rare),
        channels_first=draw(yes), zero_padding=draw(yes),
    )  # fmt: skip
    masker = draw(spans | inverse | random_positions | (uneven if kept else spans))
    if draw(yes):
        channels = SpanMasker(mask_prob=0.3, mask_length=4, min_masks=0)
        masker = ChannelMasker(positions=masker, channels=channels, embed_dim=DIM)
    lengths = [160, *draw(st.lists(st.integers(130, 160), min_size=b - 1, max_size=b - 1))]
    padding = draw(st.sampled_from([None, padding_of(lengths, 160)]))
    return adapter, masker, Batch(source=torch.randn(b, 160), padding=padding)


@st.composite
def texts(draw, b, kept):
    adapter = TextAdapterConfig(
        vocabulary_size=30, max_length=16, mask_id=29 if kept and draw(yes) else None, scale_embedding=draw(yes),
        positions=draw(st.sampled_from(["learned", "sinusoidal", None])), norm=draw(yes), embedding_dropout=draw(rare),
        gradient_scale=draw(st.sampled_from([1.0, 0.5])), alibi=draw(alibis), extra_tokens=draw(st.integers(0, 1)),
        context=draw(contexts), noise_std=draw(rare), zero_padding=draw(yes),
    )  # fmt: skip
    masker = draw(spans | random_positions | (uneven if kept else spans))
    ids = torch.randint(3, 29, (b, 14))
    lengths = [14, *draw(st.lists(st.integers(10, 14), min_size=b - 1, max_size=b - 1))]
    return adapter, masker, Batch(source=ids.masked_fill(padding_of(lengths, 14), 1))


@st.composite
def models(draw):
    """A configuration and a batch for it."""
    kept, b, encoder = draw(yes), draw(st.integers(1, 3)), draw(encoders)
    name, kind = draw(st.sampled_from([("vision", images), ("audio", waveforms), ("text", texts)]))
    adapter, masker, batch = draw(kind(b, kept))
    rules = [(), ("adapters.*.front",), ("adapters.*",)]
    if adapter.extra_tokens:
        rules.append(("adapters.*.front", "adapters.*.extra_tokens"))
    if encoder.norm_out:
        rules.append(("adapters.*", "encoder.norm_out"))
    if getattr(adapter, "mask_token", False):
        rules.append(("adapters.*.front", "adapters.*.mask_token"))
    layers = draw(st.integers(1, encoder.depth) | st.sets(st.integers(0, encoder.depth - 1), min_size=1).map(tuple))
    kind = draw(st.sampled_from(["ffn", "block"]))
    config = Data2VecConfig(
        student=BackboneConfig(
            encoder=encoder,
            adapters={name: adapter},
            visible_only=not kept,
        ),
        predictors={name: draw(heads if kept else decoders)},
        maskers={name: masker},
        targets=TargetsConfig(layers=layers, kind=kind, each=draw(norms), after=draw(norms)),
        teacher=TeacherConfig(
            schedule=EMASchedule(0.9),
            leave_out=draw(st.sampled_from(rules)),
            copy=draw(st.sampled_from([(), ("encoder.blocks.0",)])),
        ),
        loss=draw(losses),
        num_masks=draw(st.integers(1, 3)),
        cls_weight=draw(rare) if adapter.extra_tokens else 0.0,
        pixel_weight=draw(rare) if name == "vision" else 0.0,
        seed=draw(st.integers(0, 99)),
    )
    return config, batch


def idle(name, config):
    """Parameters that a valid composition need not train."""
    (adapter,) = config.student.adapters.values()
    frozen_front = getattr(adapter, "gradient_scale", 1.0) == 0 and ".front.extractor." in name
    # A mask token that nothing hides behind: 2.0 drops hidden positions.
    return frozen_front or (".mask_token." in name and config.student.visible_only)


@given(case=models())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_valid_combination_takes_steps(case):
    config, batch = case
    torch.manual_seed(config.seed)
    model = config.build()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for update in range(2):
        out = model(batch, update=update)
        n = int(out.mask.hidden.sum())
        assert out.mask.hidden.shape[0] == batch.size * config.num_masks
        assert out.predictions.shape == out.targets.shape == (n, DIM)
        assert out.sample_size == (n if config.loss.reduction == "sum" else 1)
        assert out.loss_sum.dtype == torch.float32
        assert out.loss_sum.shape == ()
        for value in (out.loss_sum, out.predictions, out.targets, *(total for total, _ in out.metrics.values())):
            assert value.isfinite().all()
        expected = (
            {"regression"} | ({"cls"} if config.cls_weight else set()) | ({"pixels"} if config.pixel_weight else set())
        )
        assert out.metrics.keys() == expected
        torch.testing.assert_close(sum(total for total, _ in out.metrics.values()), out.loss_sum.detach())
        optimizer.zero_grad()
        (out.loss_sum / out.sample_size).backward()
        found = gradients(model)
        assert all(gradient.isfinite().all() for gradient in found.values())
        assert not any(name.startswith("teacher.") for name in found)
        missing = {name for name, p in model.named_parameters() if p.requires_grad} - found.keys()
        assert {name for name in missing if not idle(name, config)} == set()
        # As recipes do: norms multiply the gradient of a class token that begins at zero by 1 / sqrt(eps) each, to 1e23
        # in all, and an update by that would throw the weights out of range.
        torch.nn.utils.clip_grad_norm_(model.parameters(), 4.0)
        optimizer.step()
        model.update_teacher(update + 1)
        assert all(tensor.isfinite().all() for tensor in model.teacher.state_dict().values())
    features = model.student.eval().encode(dataclasses.replace(batch, mask=None))
    assert features.x.isfinite().all()
