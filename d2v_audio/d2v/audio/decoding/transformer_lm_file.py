"""Transformer language models of the original toolkit (`transformer_lm`), read without executing anything.

A folder has the checkpoint and the dictionary `dict.txt`. Adaptive input and softmax are refused.
"""

import os
from pathlib import Path

from d2v.audio.decoding.transformer_lm import TransformerLM
from d2v.audio.recordings.dictionary import parse_dictionary
from d2v.audio.recordings.transcripts import read_lines
from d2v.core.data import DataError, escaped
from d2v.core.foreign import ForeignConfig, KeyTable, Rename, Rule, Shapes, both, load_tensors, read_file
from d2v.core.foreign.fairseq import model_section, read_activation, separate_block_rules, unpack
from d2v.core.foreign.rules import Constant
from d2v.core.foreign.torch_files import naming_file
from d2v.core.labels import Symbols
from d2v.core.state_dict import complaint, shapes_of
from d2v.core.unfilled import bounded

DICTIONARY = "dict.txt"
_ADAPTIVE = "adaptive input and adaptive softmax are not supported; use a model without them, or an n-gram model"
_OFF = {
    "no_token_positional_embeddings": False,
    "decoder_learned_pos": False,
    "layernorm_embedding": False,
    "no_scale_embedding": False,
    "base_layers": 0,
    "scale_fc": False,
    "scale_attn": False,
    "scale_heads": False,
    "scale_resids": False,
    "character_embeddings": False,
    "decoder_layers_to_keep": None,
    "decoder_xformers_att_config": None,
}
"""Fields that change the computation, with the only supported value."""
_UNUSED = (
    *(
        "dropout",
        "attention_dropout",
        "activation_dropout",
        "relu_dropout",
        "decoder_layerdrop",
        "adaptive_softmax_dropout",
    ),
    *("adaptive_softmax_factor", "adaptive_input_factor", "adaptive_input_cutoff", "character_filters"),
    *(
        "character_embedding_dim",
        "char_embedder_highway_layers",
        "no_decoder_final_norm",
        "base_sublayers",
        "base_shuffle",
    ),
    *("quant_noise_pq", "quant_noise_pq_block_size", "quant_noise_scalar", "min_params_to_wrap"),
    *(
        "checkpoint_activations",
        "offload_activations",
        "add_bos_token",
        "tokens_per_sample",
        "max_target_positions",
        "tpu",
    ),
)
"""Fields of training, of parts that are refused, and the final norm, which the tensors show."""
_SMALL = 1 << 26  # bytes that any model may take
_INPUT, _OUTPUT = "decoder.embed_tokens.weight", "decoder.output_projection.weight"


def read_transformer_lm(path: str | os.PathLike[str]) -> tuple[TransformerLM, Symbols]:
    """Read a language model and its dictionary, `dict.txt` in the same folder.

    Args:
        path: of the checkpoint.

    Raises:
        ForeignFileError: if the file is damaged, is no language model, or changes the computation in an unsupported
            way.
        DataError: if the dictionary is missing, wrong, or of another size than the model.
        OSError: if the file cannot be read.
    """
    symbols = _dictionary(Path(path).with_name(DICTIONARY))
    with naming_file(path):
        unpacked = unpack(read_file(path))
        if unpacked is None:
            raise ValueError("it is no checkpoint of the original toolkit; give a transformer_lm, or an n-gram model")
        model, tensors = ForeignConfig(model_section(unpacked.foreign), "model"), dict(unpacked.tensors)
        if model.get("share_decoder_input_output_embed", False) and _INPUT in tensors:
            tensors.setdefault(_OUTPUT, tensors[_INPUT])  # older files have a tied matrix once
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        with bounded(4 * sum(tensor.nbytes for tensor in tensors.values()) + _SMALL):
            lm = _built(model, shapes)
        table = _table(lm, shapes)
        problems = table.misfits(shapes, shapes_of(lm.state_dict()))
        if any(problems.values()):
            raise ValueError(f"the tensors do not fit the model; {complaint(problems)}")
        lm.load_state_dict(table.to_ours(load_tensors(path, tensors)))
    if symbols.num_outputs != lm.embedding.num_embeddings:
        raise DataError(
            f"{escaped(str(Path(path).with_name(DICTIONARY)))} has {symbols.num_outputs} words with the four specials, "
            f"the language model {lm.embedding.num_embeddings}; give the dictionary that it was trained with"
        )
    return lm.eval(), symbols


def _dictionary(path: Path) -> Symbols:
    if not path.is_file():
        raise DataError(f"{escaped(str(path))} is missing; a transformer language model needs its dictionary beside it")
    return parse_dictionary("".join(f"{line}\n" for line in read_lines(path)), str(path))


def _built(model: ForeignConfig, shapes: Shapes) -> TransformerLM:
    """The network of a configuration, untrained."""
    adaptive = ("adaptive_input", "adaptive_softmax_cutoff", "tie_adaptive_weights", "tie_adaptive_proj")
    for field in adaptive:
        model.refuse_unless(field, False, None, why=_ADAPTIVE)
    for name in shapes:
        if "adaptive_softmax" in name or "embed_tokens.embeddings" in name:
            raise ValueError(f"{name}: {_ADAPTIVE}")
    if model.get("_name", "transformer_lm") not in ("transformer_lm", None) or "decoder_embed_dim" not in model:
        raise ValueError(f"it is a {model.values.get('_name', 'model')!r}, not a transformer_lm")
    width = model.count("decoder_embed_dim", most=1 << 14)
    for field in ("decoder_input_dim", "decoder_output_dim"):
        model.refuse_unless(field, width)
    for field, value in _OFF.items():
        model.refuse_unless(field, value)
    model.ignore(*_UNUSED)
    words = shapes.get(_INPUT)
    if words is None or len(words) != 2:
        raise ValueError(f"{_INPUT} is missing; it determines the number of words")
    lm = TransformerLM(
        num_words=words[0],
        embed_dim=width,
        depth=model.count("decoder_layers"),
        num_heads=model.count("decoder_attention_heads"),
        mlp_ratio=model.count("decoder_ffn_embed_dim", most=1 << 16) / width,
        activation=read_activation(model),
        norm="pre" if model.get("decoder_normalize_before", False) else "post",
        norm_out="decoder.layer_norm.weight" in shapes,
    )
    model.finish()
    return lm


def _table(lm: TransformerLM, shapes: Shapes) -> KeyTable:
    rules: list[Rule] = [Rename(_INPUT, "embedding.weight"), Constant("decoder.version")]
    rules += [Constant(name) for name in shapes if name.endswith("_float_tensor")]  # a dummy of the sinusoids
    rules.append(Rename(_OUTPUT, "proj.weight"))
    for number in range(len(lm.encoder.blocks)):
        rules += separate_block_rules(f"decoder.layers.{number}", f"encoder.blocks.{number}")
    if lm.encoder.norm_out is not None:
        rules += both("decoder.layer_norm", "encoder.norm_out")
    return KeyTable(rules)
