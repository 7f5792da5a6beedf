"""Reader of the original toolkit's image classifiers on 2.0 models."""

import warnings
from collections.abc import Mapping
from typing import Any

import attrs

from d2v.core.foreign import ForeignConfig, Rule, Shapes, both
from d2v.core.labels import Classes
from d2v.core.model import BackboneConfig, Data2VecConfig, TransformerConfig
from d2v.core.task import Task
from d2v.vision.config import ImageAdapterConfig
from d2v.vision.tasks.classification import ImageClassification, Pooling

_POOLINGS: dict[str, Pooling] = {"MEAN_POOLING": "mean", "CLS_TOKEN": "class-token"}
_ENUMERATION = "PredictionMode."
# Settings of training that the file names and a recipe of d2v sets itself.
_TRAINING = (
    *("data", "no_pretrained_weights", "linear_classifier", "no_decay_blocks", "layer_decay"),
    *("mixup", "cutmix", "mixup_prob", "mixup_switch_prob", "mixup_mode"),
)
_DROPOUTS = (
    *("encoder_dropout", "post_mlp_drop", "attention_dropout", "activation_dropout", "dropout_input", "layerdrop"),
    *("prenet_layerdrop", "prenet_dropout"),
)


class ImageClassificationReader:
    """Reads classification of images."""

    name = "classification"
    body = "model."
    head = ""

    def accepts(self, model: Mapping[str, Any]) -> bool:
        """Return whether the configuration is that of the task."""
        return model.get("_name") in (None, "mae_image_classification") and "use_fc_norm" in model

    def read(
        self, model: ForeignConfig, foreign: Mapping[str, Any], shapes: Shapes, pretrained: Data2VecConfig
    ) -> tuple[ImageClassification, Classes]:
        """Return the task and its classes; a file has only their number."""
        del foreign, pretrained
        model.ignore(*_TRAINING)
        mode = str(model.get("prediction_mode", "MEAN_POOLING")).removeprefix(_ENUMERATION)
        if mode not in _POOLINGS:
            raise ValueError(f"model.prediction_mode={mode!r} cannot be converted: d2v does not have it")
        kept = {name: value for name in _DROPOUTS if (value := model.get(name, 0.0))}
        if kept:
            listed = ", ".join(f"model.{name}={value}" for name, value in kept.items())
            warnings.warn(f"{listed}: not taken over; predictions are not affected", stacklevel=2)
        count = shapes.get("head.weight", (0,))[0]
        if not count:
            raise ValueError("head.weight is missing; it determines the number of classes")
        model.refuse_unless("num_classes", count, why=f"the head has {count}")
        task = ImageClassification(
            pooling=_POOLINGS[mode],
            norm=model.get("use_fc_norm"),
            label_smoothing=model.get("label_smoothing", 0.0),
            drop_path_rate=model.get("drop_path_rate", 0.0),
        )
        return task, Classes(tuple(map(str, range(count))))

    def encoder(self, model: ForeignConfig, config: BackboneConfig) -> BackboneConfig:
        """Return the encoder with the task's epsilon, and without distance bias if the task removes it."""
        eps, encoder = model.get("norm_eps", None), config.encoder
        if eps is not None:
            assert isinstance(encoder, TransformerConfig)
            config = attrs.evolve(
                config, encoder=attrs.evolve(encoder, block=attrs.evolve(encoder.block, norm_eps=eps))
            )
        if model.get("remove_alibi", False):
            adapter = config.adapters["vision"]
            assert isinstance(adapter, ImageAdapterConfig)
            config = attrs.evolve(config, adapters={"vision": attrs.evolve(adapter, alibi=None)})
        return config

    def data(self, foreign: Mapping[str, Any]) -> None:
        """Return None: images are prepared as in pretraining."""

    def rules(self, task: Task, shapes: Shapes) -> list[Rule]:
        """Return the key table of norm and linear layer."""
        assert isinstance(task, ImageClassification)
        norm = both("fc_norm", "norm") if task.norm else []
        return [*norm, *both("head", "head")]
