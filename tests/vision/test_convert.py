"""Published image configurations of the three formats."""

import json
from pathlib import Path

import pytest
from building import changed, converted_back

from d2v.vision.convert import converters

DATA = Path(__file__).parent / "data"
CONFIGS = {path.stem: json.loads(path.read_text()) for path in DATA.glob("*.json")}
NEW, FORMER, BEIT = CONFIGS["image_base"], CONFIGS["vision_fairseq_v1"], CONFIGS["vision_beit_v1"]
SHAPES = {"modality_encoders.IMAGE.context_encoder.norm.weight": (32,)}


@pytest.mark.parametrize("name", ["image_base", "image_large", "vision_fairseq_v1", "vision_beit_v1"])
def test_published_settings_convert_without_a_warning(name):
    assert converted_back(converters, CONFIGS[name], SHAPES).model.student.encoder.blocks


@pytest.mark.parametrize(
    ("foreign", "path", "value"),
    [
        (NEW, "modalities.image.embed_dim", 24),
        (NEW, "modalities.image.fixed_positions", False),
        (NEW, "modalities.image.mask_length", 1),
        (NEW, "modalities.image.use_alibi_encoder", True),
        (NEW, "modalities.image.ema_local_encoder", False),
        (NEW, "clone_batch", 1),
        (NEW, "recon_loss", 0.1),
        (NEW, "layer_norm_first", True),
        (NEW, "loss_beta", 1.0),
        (FORMER, "ema_transformer_only", False),
        (FORMER, "end_of_block_targets", False),
        (FORMER, "layer_scale_init_value", 0),
        (FORMER, "loss_beta", 0),
        (BEIT, "use_abs_pos_emb", True),
        (BEIT, "use_rel_pos_bias", True),
        (BEIT, "use_shared_rel_pos_bias", False),
        (BEIT, "init_values", 0),
        (BEIT, "layer_results", "fc"),
        (BEIT, "l2_loss", True),
        (BEIT, "var_w0", 0.1),
        (BEIT, "target_batch_norm", True),
    ],
)
def test_other_settings_convert(foreign, path, value):
    shapes = SHAPES if path != "layer_norm_first" else {"norm.weight": (32,)}
    converted_back(converters, changed(foreign, path, value), shapes)


@pytest.mark.parametrize(
    ("foreign", "path", "value", "message"),
    [
        (NEW, "modalities.image.transformer_decoder", True, "image.transformer_decoder=True "),
        (NEW, "modalities.image.enc_dec_transformer", True, "image.enc_dec_transformer=True "),
        (NEW, "modalities.image.learned_alibi", True, "image.learned_alibi=True "),
        (NEW, "modalities.image.keep_masked_pct", 0.2, "image.keep_masked_pct=0.2 "),
        (NEW, "shared_decoder", {"decoder_dim": 8}, "model.shared_decoder="),
        (NEW, "modalities.image.input_size", 8000, "image.input_size=8000 .*patches"),
        (NEW, "modalities.image.patch_size", 0, "patches of 0"),
        (FORMER, "image_size", 1 << 40, "model.image_size=1099511627776 "),
        (BEIT, "img_size", 8000, "arguments.img_size=8000 "),
        (FORMER, "shared_rel_pos_bias", False, "model.shared_rel_pos_bias=False "),
        (BEIT, "mask_dropout_prob", 0.1, "arguments.mask_dropout_prob=0.1 "),
    ],
)
def test_refusals_by_name(foreign, path, value, message):
    with pytest.raises(ValueError, match=message):
        converted_back(converters, changed(foreign, path, value), SHAPES)


@pytest.mark.parametrize(("foreign", "name"), [(NEW, "model"), (FORMER, "model"), (BEIT, "arguments")])
def test_unknown_fields_warn(foreign, name):
    with pytest.warns(UserWarning, match=f"^{name} .*: zeal$"):
        converted_back(converters, foreign | {"zeal": 3}, SHAPES)
