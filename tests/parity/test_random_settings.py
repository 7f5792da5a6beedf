"""The library against the plain formulation on random settings that no reference folder has.

The plain formulation computes in double precision, so that what remains is the library's rounding.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import check
import draw_former
import draw_image
import draw_multimodal
import plain
import plain_former
import plain_image
import pytest
from case_former import TIME_FIRST
from compare import compare
from reading import Tensors

MULTIMODAL = 120
BOTH = {True, False}
WANTED: dict[str, dict[str, set[Any]]] = {
    "all": {
        "layer_norm_first": BOTH,
        "norm_affine": BOTH,
        "prenet_depth": {0, 1, 2},
        "num_extra_tokens": {0, 1, 2},
        "cls": BOTH,
        "clone_batch": {1, 2, 3},
        "end_of_block_targets": BOTH,
        "batch_norm_target_layer": BOTH,
        "instance_norm_target_layer": BOTH,
        "layer_norm_target_layer": BOTH,
        "layer_norm_targets": BOTH,
        "instance_norm_targets": BOTH,
        "loss_beta": {0.0, 0.5, 1.5},
        "loss_scale": {None, 1.0, 0.3},
        "d2v_loss": {1.0, 0.7},
        "use_alibi_encoder": BOTH,
        "learned_alibi_scale": BOTH,
        "learned_alibi_scale_per_head": BOTH,
        "learned_alibi_scale_per_layer": BOTH,
        "negative_scale": BOTH,
        "ema_encoder_only": BOTH,
        "ema_local_encoder": BOTH,
        "num_heads": {2, 3, 4, 6},
        "encoder_zero_mask": BOTH,
        "ema_end_decay": {0.8, 0.95, 1.0},
        "local_grad_mult": {0.0, 0.5, 1.0},
        "decoder_residual": BOTH,
        "decoder_kernel": {2, 3, 4, 5},
        "projection_layers": {1, 2, 3},
    },
    "image": {"pixels": BOTH, "wide": BOTH, "fixed_positions": BOTH, "alibi_distance": {"manhattan", "euclidean"}},
    "audio": {"padding": BOTH, "channels": BOTH, "extractor_mode": {"layer_norm", "default"}},
    "text": {
        "padding": BOTH,
        "learned_pos": BOTH,
        "no_scale_embedding": BOTH,
        "layernorm_embedding": BOTH,
        "no_token_positional_embeddings": BOTH,
    },
}
SLACK = 2.0  # sums of so small cases cancel more, and processors round differently
Case = tuple[dict[str, Any], Tensors, Tensors]


def _as_file(outputs: Tensors) -> Tensors:
    """Outputs of speech and text in the files' order of axes."""
    return {n: t.transpose(0, 1) if n.startswith(TIME_FIRST) else t for n, t in outputs.items()}


def _hold(case: Case, run: Callable[..., Tensors], order: Callable[[Tensors], Tensors] = dict) -> None:
    config, tensors, io = case
    double = [{n: t.double() if t.is_floating_point() else t for n, t in one.items()} for one in (tensors, io)]
    outputs = run(config, *double)
    assert all(t.isfinite().all() for t in outputs.values())
    outputs = {n: t.float() if t.is_floating_point() else t for n, t in outputs.items()}
    expected, produced = check.ran(config, tensors, io | order(outputs))
    assert _gradients(produced).keys() == _gradients(expected).keys()
    # A bias of separate keys adds the same to all scores of a query: its gradient is zero but for rounding.
    largest = max(float(t.abs().max()) for t in _gradients(expected).values())
    for name in [n for n in expected if n.endswith("k_proj.bias") and n.startswith("grad.")]:
        assert float(produced[name].abs().max()) < 1e-6 * largest
        del expected[name]
    problems, _ = compare(expected, produced, slack=SLACK)
    assert not problems, config


def _gradients(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name.startswith("grad.")}


@pytest.mark.parametrize("seed", range(MULTIMODAL))
def test_multimodal(seed: int) -> None:
    _hold(draw_multimodal.draw(seed), plain.run)


@pytest.mark.parametrize("seed", range(30))
def test_former_audio(seed: int) -> None:
    _hold(draw_former.audio(seed), plain_former.run, _as_file)


@pytest.mark.parametrize("seed", range(30))
def test_former_text(seed: int) -> None:
    _hold(draw_former.text(seed), plain_former.run, _as_file)


@pytest.mark.parametrize("seed", range(20))
def test_former_vision(seed: int) -> None:
    _hold(draw_image.vision(seed), plain_former.run)


@pytest.mark.parametrize("seed", range(20))
def test_beit(seed: int) -> None:
    _hold(draw_image.beit(seed), plain_image.run_beit)


def test_every_setting_is_drawn() -> None:
    """Each modality of 2.0 meets each value of each setting: a list of cases that left one out would pass as well."""
    seen: dict[tuple[str, str], set[Any]] = defaultdict(set)
    for seed in range(MULTIMODAL):
        config, tensors, io = draw_multimodal.draw(seed)
        model = config["model"]
        (kind,) = model["modalities"]
        settings = model["modalities"][kind]
        facts = {"padding": "padding_mask" in io, "channels": "channel_mask" in io, "cls": model["cls_loss"] > 0}
        facts["pixels"] = model["recon_loss"] > 0
        facts["negative_scale"] = any((t < 0).any() for n, t in tensors.items() if n.endswith("alibi_scale"))
        facts["wide"] = settings.get("embed_dim", model["embed_dim"]) != model["embed_dim"]
        for field, value in (model | settings | settings["decoder"] | facts).items():
            if isinstance(value, int | float | str | None):
                seen[kind, field].add(value)
    for kind, fields in WANTED.items():
        for field, values in fields.items():
            for one in ("image", "audio", "text") if kind == "all" else (kind,):
                assert values <= seen[one, field], (one, field)
