"""Converters of the original toolkit's fine-tuned speech models: speech recognition with CTC, and audio tagging.

Such a file holds the encoder, a linear layer, and the configuration of its pretraining inside that of the task.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from attrs import frozen

from d2v.audio.conversion.former import read_span_masks
from d2v.audio.conversion.published import recordings_data
from d2v.audio.recordings.dictionary import toolkit_symbols
from d2v.audio.tasks.classification import AudioTagging
from d2v.audio.tasks.ctc import CTC
from d2v.audio.tasks.mixing import GainMode
from d2v.audio.tasks.pooling import Pooling
from d2v.core.description import Description
from d2v.core.foreign import (
    Converter,
    ForeignConfig,
    KeyTable,
    Layout,
    Rule,
    Shapes,
    Unpacked,
    both,
    own_parts,
    whole_model,
)
from d2v.core.foreign.fairseq import model_section, unpack
from d2v.core.labels import Labels, MultiLabel, Symbols
from d2v.core.model import BackboneConfig
from d2v.core.task import Task

_PRETRAINING = ("w2v_args", "d2v_args")
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


class PretrainedFormat(Converter, Protocol):
    """Converter of pretrained models that can name the tensors of an encoder alone."""

    def encoder_rules(self, student: BackboneConfig, name: str) -> list[Rule]:
        """Return the key table of an encoder that is called `name` in the module."""
        ...


class TaskReader(Protocol):
    """Reads the parts of a file that are specific to a task.

    Attributes:
        name: of the task, for messages.
        body: prefix of the encoder's tensors.
        head: prefix of the other tensors.
    """

    name: str
    body: str
    head: str

    def accepts(self, model: Mapping[str, Any]) -> bool:
        """Return whether the configuration is that of the task."""
        ...

    def read(
        self, model: ForeignConfig, foreign: Mapping[str, Any], shapes: Shapes, noise_std: float
    ) -> tuple[Task, Labels]:
        """Return the task and its labels.

        Args:
            model: the task's configuration.
            foreign: configuration of the run, with its dictionaries.
            shapes: of the file's tensors.
            noise_std: noise of hidden frames in pretraining.
        """
        ...

    def rules(self) -> list[Rule]:
        """Return the key table of the head."""
        ...


@frozen
class FineTunedFormat:
    """A converter of one task on one generation of encoders.

    Args:
        pretrained: converter of the encoder.
        reader: reads the task.
    """

    pretrained: PretrainedFormat
    reader: TaskReader

    @property
    def name(self) -> str:
        """Name for messages and listings."""
        return f"{self.pretrained.name}, {self.reader.name}"

    def unpack(self, contents: Mapping[str, Any]) -> Unpacked | None:
        """Return the model in a checkpoint of the toolkit."""
        return unpack(contents)

    def accepts(self, foreign: Mapping[str, Any]) -> bool:
        """Return whether the file holds this task on an encoder of this generation."""
        model = model_section(foreign)
        pretraining = _pretraining(model)
        return pretraining is not None and self.reader.accepts(model) and self.pretrained.accepts(pretraining)

    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Description:
        """Convert the fields to an encoder with its task; the task's settings replace those of pretraining.

        Raises:
            ValueError: if a field is missing, or changes the computation in an unsupported way.
        """
        model = ForeignConfig(model_section(foreign), "model")
        pretraining = _pretraining(model.values)
        assert pretraining is not None
        model.ignore(*_PRETRAINING)
        own = {name.removeprefix(self.reader.body): shape for name, shape in shapes.items()}
        description = self.pretrained.config(pretraining, own)
        noise_std: float = getattr(whole_model(description).predictors["audio"], "noise_std", 0.0)
        task, labels = self.reader.read(model, foreign, shapes, noise_std)
        model.finish()
        data = recordings_data(foreign)
        return Description(
            model=task.adapt(description.student.unmasked()),
            data={"audio": data} if data else description.data,
            task=task,
            labels=labels,
        )

    def layout(self, description: Description, shapes: Shapes) -> Layout:
        """Return the key table of a file of this model."""
        del shapes
        student, _ = own_parts(description)
        rules = [*self.pretrained.encoder_rules(student, "encoder"), *self.reader.rules()]
        return Layout(table=KeyTable(rules), prefixes=(self.reader.body, self.reader.head))


class CTCReader:
    """Reads speech recognition with CTC."""

    name = "CTC"
    body = "w2v_encoder.w2v_model."
    head = "w2v_encoder."

    def accepts(self, model: Mapping[str, Any]) -> bool:
        """Return whether the configuration is that of the task."""
        return model.get("_name") in (None, "wav2vec_ctc") and "prediction_mode" not in model

    def read(
        self, model: ForeignConfig, foreign: Mapping[str, Any], shapes: Shapes, noise_std: float
    ) -> tuple[CTC, Symbols]:
        """Return the task and its dictionary."""
        symbols = foreign.get("dictionaries", {}).get("target_dictionary")
        if symbols is None:
            raise ValueError("the file has no dictionary (task_state.target_dictionary), so its symbols have no names")
        _ignore_run(model)
        model.ignore("w2v_path", "drop_path", "layer_decay", "load_ema", "freeze_regex")
        model.ignore("adp_act_fn", "adp_dim", "adp_trf_idx")
        model.refuse_unless("adp_num", -1, 0)
        model.refuse_unless("layer_type", "transformer")
        task = CTC(
            **_common(model),
            mask_noise_std=0.0 if model.get("zero_mask", False) else noise_std,
            learned_alibi=model.get("update_alibi", True),
            blank_weight=model.get("blank_weight", 0.0),
            blank_mode=model.get("blank_mode", "add"),
            average="utterances" if _per_utterance(foreign) else "symbols",
        )
        return task, toolkit_symbols(symbols)

    def rules(self) -> list[Rule]:
        """Return the key table of the linear layer."""
        return both("proj", "proj")


class TaggingReader:
    """Reads audio classification with any number of classes."""

    name = "audio tagging"
    body = "d2v_model."
    head = ""

    def accepts(self, model: Mapping[str, Any]) -> bool:
        """Return whether the configuration is that of the task."""
        return "prediction_mode" in model

    def read(
        self, model: ForeignConfig, foreign: Mapping[str, Any], shapes: Shapes, noise_std: float
    ) -> tuple[AudioTagging, MultiLabel]:
        """Return the task and its classes; a file has only their number."""
        _ignore_run(model)
        model.ignore("model_path")
        for field, value in (("conv_feature_layers", None), ("conv_kernel", -1), ("conv_stride", 1)):
            model.refuse_unless(field, value)
        model.refuse_unless("two_convs", False)
        model.refuse_unless("prediction_mode", *_POOLINGS)
        model.refuse_unless("eval_prediction_mode", None, *_POOLINGS)
        model.refuse_unless("gain_mode", *_GAINS)
        low = model.get("source_mixup")
        task = AudioTagging(
            **_common(model),
            mask_noise_std=noise_std,
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

    def rules(self) -> list[Rule]:
        """Return the key table of the linear layer."""
        return both("proj", "head.proj")


def _pretraining(model: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The configuration of the encoder's pretraining run."""
    found = next((model[field] for field in _PRETRAINING if field in model), None)
    return found if isinstance(found, Mapping) else None


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
