"""Published speech configurations, and convolution specs that are Python expressions."""

import json
import re
from pathlib import Path

import pytest
from building import changed, converted_back

from d2v.audio.conversion.published import read_conv_layers
from d2v.audio.convert import converters

DATA = Path(__file__).parent / "data"
CONFIGS = {path.stem: json.loads(path.read_text()) for path in DATA.glob("*.json")}
NEW, FORMER = CONFIGS["audio_base"], CONFIGS["audio_v1_base"]
SHAPES = {"modality_encoders.AUDIO.context_encoder.norm.weight": (48,)}


@pytest.mark.parametrize("name", ["audio_base", "audio_v1_base", "audio_v1_audioset"])
def test_published_settings_convert_without_a_warning(name):
    assert converted_back(converters, CONFIGS[name], SHAPES).model.student.encoder.blocks


@pytest.mark.parametrize(
    ("foreign", "path", "value"),
    [
        (NEW, "modalities.audio.prenet_depth", 2),
        (NEW, "modalities.audio.num_extra_tokens", 1),
        (NEW, "modalities.audio.learned_alibi_scale_per_layer", True),
        (NEW, "modalities.audio.learned_alibi_scale_per_head", False),
        (NEW, "modalities.audio.use_alibi_encoder", False),
        (NEW, "modalities.audio.extractor_mode", "default"),
        (NEW, "modalities.audio.mask_length", 1),
        (NEW, "modalities.audio.mask_channel_prob", 0.3),
        (NEW, "modalities.audio.ema_local_encoder", True),
        (NEW, "modalities.audio.decoder.projection_layers", 2),
        (NEW, "layer_norm_first", True),
        (NEW, "norm_affine", False),
        (NEW, "end_of_block_targets", True),
        (NEW, "ema_encoder_only", True),
        (NEW, "loss_beta", 1.0),
        (FORMER, "layer_norm_first", True),
        (FORMER, "conv_bias", True),
        (FORMER, "extractor_mode", "default"),
        (FORMER, "mask_channel_prob", 0.3),
        (FORMER, "ema_transformer_only", False),
        (FORMER, "activation_fn", "gelu_accurate"),
    ],
)
def test_other_settings_convert(foreign, path, value):
    foreign = changed(foreign, path, value)
    if path == "ema_transformer_only":
        foreign["ema_layers_only"] = False
    shapes = SHAPES if path != "layer_norm_first" else {"norm.weight": (48,)}
    converted_back(converters, foreign, shapes)


@pytest.mark.parametrize(
    ("foreign", "path", "value"),
    [
        (NEW, "shared_decoder", {"decoder_dim": 8}),
        (NEW, "skip_ema", True),
        (NEW, "modalities.audio.learned_alibi", True),
        (NEW, "modalities.audio.alibi_dims", 2),
        (NEW, "modalities.audio.keep_masked_pct", 0.1),
        (NEW, "modalities.audio.mask_prob_min", 0.1),
        (NEW, "modalities.audio.conv_pos_pre_ln", True),
        (NEW, "modalities.audio.extractor_mode", "batch"),
        (NEW, "modalities.audio.decoder.add_positions_all", True),
        (NEW, "modalities.audio.decoder.add_positions_masked", True),
        (FORMER, "quantize_input", True),
        (FORMER, "quantize_targets", True),
        (FORMER, "target_glu", True),
        (FORMER, "layer_type", "conformer"),
        (FORMER, "activation_fn", "swish"),
        (FORMER, "pos_enc_type", "rope"),
        (FORMER, "attn_type", "espnet"),
        (FORMER, "adp_num", 1),
        (FORMER, "crop_seq_to_multiple", 4),
        (FORMER, "extractor_mode", "batch"),
        (FORMER, "pos_conv_depth", 1),
    ],
)
def test_refusals_by_name(foreign, path, value):
    with pytest.raises(ValueError, match=rf"model\.{path}={re.escape(repr(value))} "):
        converted_back(converters, changed(foreign, path, value), SHAPES)


@pytest.mark.parametrize("field", ["instance_norm_targets", "group_norm_target_layer"])
def test_norms_that_the_original_computes_over_the_wrong_axis(field):
    foreign = FORMER | {"instance_norm_target_layer": False, "layer_norm_target_layer": True, field: True}
    with pytest.raises(ValueError, match=rf"model\.{field}\b.*axis"):
        converted_back(converters, foreign, SHAPES)
    converted_back(converters, foreign | {"batch_norm_target_layer": True}, SHAPES)


@pytest.mark.parametrize("foreign", [NEW, FORMER])
def test_unknown_fields_warn(foreign):
    with pytest.warns(UserWarning, match=r"^model .*: zeal$"):
        converted_back(converters, foreign | {"zeal": 3}, SHAPES)


@pytest.mark.parametrize(
    ("spec", "layers"),
    [
        (
            "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]",
            [(512, 10, 5), *[(512, 3, 2)] * 4, *[(512, 2, 2)] * 2],
        ),
        ("[(8,3,2)] * 100", [(8, 3, 2)] * 100),
        ("[[8, 3, 2], (8, 2, 2)]", [(8, 3, 2), (8, 2, 2)]),
        ([[8, 3, 2]], [(8, 3, 2)]),
    ],
)
def test_conv_specs(spec, layers):
    assert read_conv_layers(spec) == tuple(layers)


HOSTILE = {
    "call": "__import__('os').system('touch {trap}')",
    "call inside": "[(8, 3, 2)] + list(open('{trap}', 'w'))",
    "name": "layers",
    "attribute": "[].__class__.__base__",
    "comprehension": "[(8, 3, 2) for _ in range(9)]",
    "walrus": "[(x := 8, 3, 2)]",
    "f-string": 'f\'{{open("{trap}", "w")}}\'',
    "lambda": "(lambda: 8)()",
    "power": "[(8, 3, 9 ** 9 ** 9)]",
    "huge factor": "[(8, 3, 2)] * 1000000000",
    "huge product": "[(8, 3, 2)]" + " * 100" * 9,
    "negative factor": "[(8, 3, 2)] * -1",
    "too many layers": "[(8, 3, 2)] * 100 + [(8, 3, 2)]",
    "huge integer": "[(" + "9" * 5000 + ", 3, 2)]",
    "deep lists": "[" * 150 + "]" * 150,
    "deeper lists": "[" * 10_000 + "]" * 10_000,
    "deep sums": "[(8, 3, 2)]" + " + [(8, 3, 2)]" * 20_000,
    "deep minus": "-" * 50_000 + "1",
    "nothing": "",
    "empty": "[]",
    "pairs": "[(8, 3)]",
    "zero": "[(8, 3, 0)]",
    "negative": "[(8, -3, 2)]",
    "fractions": "[(8.5, 3, 2)]",
    "texts": "[('8', '3', '2')]",
    "bytes": "b'abc'",
    "null byte": "[(8, 3, 2)]\0",
    "statement": "import os",
    "truth": "[(True, True, True)]",
    "channels that fit no memory": "[(1000000000000, 3, 2)]",
    "none": None,
    "number": 3,
    "list of texts": ["abc"],
    "list of fractions": [[8.5, 3, 2]],
}


@pytest.mark.parametrize("spec", HOSTILE.values(), ids=HOSTILE)
def test_hostile_conv_specs_are_refused_and_nothing_is_run(spec, tmp_path):
    trap = tmp_path / "trap"
    spec = spec.format(trap=trap) if isinstance(spec, str) and "{trap}" in spec else spec
    with pytest.raises(ValueError, match=r"\(channels, kernel, stride\)") as caught:
        read_conv_layers(spec)
    assert not trap.exists()
    assert len(str(caught.value)) < 300, "one readable line"
    assert "\n" not in str(caught.value)
