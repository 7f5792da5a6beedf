"""Readers of the original toolkit's fine-tuned speech models: speech recognition with CTC, and audio tagging."""

import warnings
from collections.abc import Mapping
from typing import Any

from d2v.audio.conversion.former import read_span_masks
from d2v.audio.conversion.published import recordings_data
from d2v.audio.recordings.dictionary import librispeech_dictionary, parse_dictionary, toolkit_symbols
from d2v.audio.tasks.classification import AudioTagging
from d2v.audio.tasks.ctc import CTC
from d2v.audio.tasks.mixing import GainMode
from d2v.audio.tasks.pooling import Pooling
from d2v.core.foreign import ForeignConfig, Rule, Shapes, both
from d2v.core.labels import MultiLabel, Symbols
from d2v.core.model import BackboneConfig, Data2VecConfig
from d2v.core.task import Task

_POOLINGS: dict[str, Pooling] = {
    "lin_softmax": "linear-softmax",
    "average": "mean",
    "max": "max",
    "max_sigmoid": "max",  # the logit of the largest probability is the largest logit
    "average_sigmoid": "mean-sigmoid",
    "average_before": "mean-features",
    "extremized_odds": "extremized-odds",
}
_GAINS: dict[str, GainMode] = {"none": "none", "rms": "rms", "a_weighting": "a-weighting"}


class _SpeechReader:
    """What both tasks have in common."""

    def encoder(self, model: ForeignConfig, config: BackboneConfig) -> BackboneConfig:
        """Return the encoder unchanged; the task's dropouts are those of its settings."""
        return config

    def data(self, foreign: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the preparation of recordings."""
        return recordings_data(foreign)


class CTCReader(_SpeechReader):
    """Reads speech recognition with CTC."""

    name = "CTC"
    body = "w2v_encoder.w2v_model."
    head = "w2v_encoder."

    def accepts(self, model: Mapping[str, Any]) -> bool:
        """Return whether the configuration is that of the task."""
        return (
            model.get("_name") in (None, "wav2vec_ctc") and "final_dropout" in model and "prediction_mode" not in model
        )

    def read(
        self, model: ForeignConfig, foreign: Mapping[str, Any], shapes: Shapes, pretrained: Data2VecConfig
    ) -> tuple[CTC, Symbols]:
        """Return the task and its dictionary."""
        symbols = foreign.get("dictionaries", {}).get("target_dictionary")
        labels = _letters(shapes[f"{self.head}proj.weight"][0]) if symbols is None else toolkit_symbols(symbols)
        _ignore_run(model)
        model.ignore("drop_path", "layer_decay", "load_ema", "freeze_regex")
        model.ignore("adp_act_fn", "adp_dim", "adp_trf_idx")
        model.refuse_unless("adp_num", -1, 0)
        model.refuse_unless("layer_type", "transformer")
        task = CTC(
            **_common(model),
            mask_noise_std=0.0 if model.get("zero_mask", False) else _noise_std(pretrained),
            learned_alibi=model.get("update_alibi", True),
            blank_weight=model.get("blank_weight", 0.0),
            blank_mode=model.get("blank_mode", "add"),
            average="utterances" if _per_utterance(foreign) else "symbols",
        )
        return task, labels

    def rules(self, task: Task, shapes: Shapes) -> list[Rule]:
        """Return the key table of the linear layer."""
        return both("proj", "proj")


def _letters(outputs: int) -> Symbols:
    """The published letters of LibriSpeech, for a file without a dictionary."""
    letters = parse_dictionary(librispeech_dictionary(), "dict.ltr.txt")
    if letters.num_outputs != outputs:
        raise ValueError(
            f"the file has no dictionary (task_state.target_dictionary), so its {outputs} symbols have no names"
        )
    warnings.warn("the file has no dictionary: its symbols are taken to be the letters of LibriSpeech", stacklevel=2)
    return letters


class TaggingReader(_SpeechReader):
    """Reads audio classification with any number of classes."""

    name = "audio tagging"
    body = "d2v_model."
    head = ""

    def accepts(self, model: Mapping[str, Any]) -> bool:
        """Return whether the configuration is that of the task."""
        return "prediction_mode" in model and "final_dropout" in model

    def read(
        self, model: ForeignConfig, foreign: Mapping[str, Any], shapes: Shapes, pretrained: Data2VecConfig
    ) -> tuple[AudioTagging, MultiLabel]:
        """Return the task and its classes; a file has only their number."""
        _ignore_run(model)
        for field, value in (("conv_feature_layers", None), ("conv_kernel", -1), ("conv_stride", 1)):
            model.refuse_unless(field, value)
        model.refuse_unless("two_convs", False)
        model.refuse_unless("prediction_mode", *_POOLINGS)
        model.refuse_unless("eval_prediction_mode", None, *_POOLINGS)
        model.refuse_unless("gain_mode", *_GAINS)
        low = model.get("source_mixup")
        task = AudioTagging(
            **_common(model),
            mask_noise_std=_noise_std(pretrained),
            pooling=_POOLINGS[model.get("prediction_mode")],
            eval_pooling=_POOLINGS.get(model.get("eval_prediction_mode", None)),
            odds_factor=model.get("extreme_factor", 1.0),
            mixup=low if low >= 0 else None,
            mixup_prob=model.get("mixup_prob"),
            same_mixup=model.get("same_mixup"),
            label_mixup=model.get("label_mixup"),
            gain_mode=_GAINS[model.get("gain_mode", "none")],
        )
        if "proj.weight" not in shapes:
            raise ValueError("proj.weight is missing; it determines the number of classes")
        return task, MultiLabel(tuple(map(str, range(shapes["proj.weight"][0]))))

    def rules(self, task: Task, shapes: Shapes) -> list[Rule]:
        """Return the key table of the linear layer."""
        return both("proj", "head.proj")


def _noise_std(pretrained: Data2VecConfig) -> float:
    """Noise of hidden frames in pretraining."""
    noise: float = getattr(pretrained.predictors["audio"], "noise_std", 0.0)
    return noise


def _common(model: ForeignConfig) -> dict[str, Any]:
    """Fields that both tasks have, as those of `FineTuningParts`."""
    spans, channels = read_span_masks(model)
    masked = model.get("apply_mask")
    return {
        "dropout": model.get("dropout"),
        "attention_dropout": model.get("attention_dropout"),
        "activation_dropout": model.get("activation_dropout"),
        "input_dropout": model.get("dropout_input"),
        "final_dropout": model.get("final_dropout"),
        "layer_drop": model.get("layerdrop"),
        "mask": spans if masked and spans.mask_prob > 0 else None,
        "channel_mask": channels if masked else None,
        "channels_first": model.get("mask_channel_before"),
        "gradient_scale": model.get("feature_grad_mult"),
    }


def _ignore_run(model: ForeignConfig) -> None:
    """Fields of the run, and of how it was loaded; the recipe has its own."""
    model.ignore("data", "normalize", "no_pretrained_weights", "freeze_finetune_updates", "checkpoint_activations")
    model.ignore("offload_activations", "min_params_to_wrap", "ddp_backend")


def _per_utterance(foreign: Mapping[str, Any]) -> bool:
    """Whether the loss is a mean over utterances; the criterion's field is that of the optimisation by default."""
    sections = (foreign.get("criterion"), foreign.get("optimization"))
    given = [one["sentence_avg"] for one in sections if isinstance(one, Mapping) and "sentence_avg" in one]
    return bool(given[0]) if given else True
