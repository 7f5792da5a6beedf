"""Published text configurations of both formats."""

import json
import re
from pathlib import Path

import pytest
import torch
from building import changed, converted_back

from d2v.text.convert import classification_head_table, converters
from d2v.text.convert_fine_tuned import converters as fine_tuned_converters

DATA = Path(__file__).parent / "data"
CONFIGS = {path.stem: json.loads(path.read_text()) for path in DATA.glob("*.json")}
NEW, FORMER = CONFIGS["text_base"], CONFIGS["text_v1_base"]
SHAPES = {
    "modality_encoders.TEXT.local_encoder.embed_tokens.weight": (64, 32),
    "encoder.sentence_encoder.embed_tokens.weight": (45, 32),
}
FORMER_POSITIONS = {"encoder.sentence_encoder.embed_positions.weight": (24, 32)}


@pytest.mark.parametrize("name", ["text_base", "text_v1_base"])
def test_published_settings_convert_without_a_warning(name):
    assert converted_back(converters, CONFIGS[name], SHAPES).model.student.encoder.blocks


def test_sizes_come_from_shapes():
    adapter = converted_back(converters, FORMER, SHAPES | FORMER_POSITIONS).description.student.adapters["text"]
    assert (adapter.vocabulary_size, adapter.mask_id, adapter.max_length) == (45, 44, 22)
    assert converted_back(converters, NEW, SHAPES).description.student.adapters["text"].vocabulary_size == 64
    for foreign in (NEW, FORMER):
        with pytest.raises(ValueError, match=r"embed_tokens\.weight"):
            converted_back(converters, foreign, {})


@pytest.mark.parametrize(
    ("foreign", "path", "value"),
    [
        (NEW, "modalities.text.prenet_depth", 1),
        (NEW, "modalities.text.learned_pos", False),
        (NEW, "modalities.text.no_token_positional_embeddings", True),
        (NEW, "modalities.text.layernorm_embedding", False),
        (NEW, "modalities.text.no_scale_embedding", False),
        (NEW, "modalities.text.mask_length", 3),
        (NEW, "modalities.text.use_alibi_encoder", True),
        (NEW, "modalities.text.num_extra_tokens", 1),
        (NEW, "layer_norm_first", True),
        (NEW, "ema_encoder_only", False),
        (FORMER, "head_layers", 1),
        (FORMER, "ema_transformer_layers_only", False),
        (FORMER, "transformer.encoder.normalize_before", True),
        (FORMER, "transformer.encoder.learned_pos", False),
        (FORMER, "transformer.layernorm_embedding", False),
        (FORMER, "transformer.no_scale_embedding", False),
        (FORMER, "loss_scale", -1),
        (FORMER, "transformer.activation_fn", "gelu_fast"),
    ],
)
def test_other_settings_convert(foreign, path, value):
    shapes = SHAPES | ({"norm.weight": (32,)} if path == "layer_norm_first" else {})
    if path.endswith("prenet_depth"):
        shapes["modality_encoders.TEXT.context_encoder.norm.weight"] = (32,)
    converted_back(converters, changed(foreign, path, value), shapes)


@pytest.mark.parametrize(
    ("foreign", "path", "value"),
    [
        (NEW, "modalities.text.learned_alibi", True),
        (NEW, "modalities.text.keep_masked_pct", 0.2),
        (NEW, "shared_decoder", {"decoder_dim": 8}),
        (FORMER, "transformer.activation_fn", "swish"),
    ],
)
def test_refusals_by_name(foreign, path, value):
    with pytest.raises(ValueError, match=rf"model\.{path}={re.escape(repr(value))} "):
        converted_back(converters, changed(foreign, path, value), SHAPES)


@pytest.mark.parametrize("foreign", [NEW, FORMER])
def test_unknown_fields_warn(foreign):
    with pytest.warns(UserWarning, match=r"^model .*: zeal$"):
        converted_back(converters, foreign | {"zeal": 3}, SHAPES)


@pytest.mark.parametrize("section", [{"_name": "roberta_base"}, {"arch": "roberta_large"}])
def test_classifiers_on_former_models_are_refused_by_name(section):
    shapes = {"classification_heads.cola.out_proj.weight": (2, 32), "encoder.lm_head.bias": (45,)}
    (converter,) = [one for one in fine_tuned_converters if one.accepts({"model": section})]
    with pytest.raises(ValueError, match=r"RoBERTa model with the head cola.*text/v1-glue"):
        converter.config({"model": section}, shapes)
    assert not any(one.accepts({"model": section}) for one in converters)


def test_the_table_of_a_classification_head():
    table = classification_head_table("classification_heads.sst2")
    names = [
        f"classification_heads.sst2.{x}" for x in ("dense.weight", "dense.bias", "out_proj.weight", "out_proj.bias")
    ]
    assert list(table.to_ours({name: torch.ones(1) for name in names})) == [
        n.removeprefix("classification_heads.sst2.") for n in names
    ]
