"""Converter of the original toolkit's text classifiers on 2.0 models.

Such a file holds the encoder and its head. The configuration of the encoder is inside that of the task, if the file has
it at all: the toolkit stores the path of the pretrained file instead, which is then looked for in the same folder.
"""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from d2v.core.description import Description
from d2v.core.foreign import ForeignConfig, KeyTable, Layout, Shapes, Unpacked, both, own_parts
from d2v.core.foreign.fairseq import MultimodalFormat, model_section, unpack
from d2v.core.labels import Classes, Labels, Number
from d2v.text.convert import multimodal_format
from d2v.text.tasks.classification import TextClassification, TextRegression

_PRETRAINING = "pretrained_model_args"
_HEADS, _LAST = "classification_heads.", ".out_proj.weight"


@frozen
class FineTunedTextFormat:
    """Text classification or regression on the 2.0 text model of the original toolkit.

    Args:
        pretrained: converter of the encoder.
    """

    pretrained: MultimodalFormat = multimodal_format

    @property
    def name(self) -> str:
        """Name for messages and listings."""
        return f"{self.pretrained.name}, classification"

    def unpack(self, contents: Mapping[str, Any]) -> Unpacked | None:
        """Return the model in a checkpoint of the toolkit."""
        return unpack(contents)

    def accepts(self, foreign: Mapping[str, Any]) -> bool:
        """Return whether the file holds such a classifier."""
        model = model_section(foreign)
        pretraining = model.get(_PRETRAINING)
        return model.get("_name") in (None, "data2vec_text_classification") and (
            _PRETRAINING in model and (pretraining is None or self.pretrained.accepts(pretraining))
        )

    def file_beside(self, foreign: Mapping[str, Any]) -> str | None:
        """Return the name of the pretrained file if the configuration of the encoder is missing."""
        model = model_section(foreign)
        path = model.get("model_path")
        return path if model.get(_PRETRAINING) is None and isinstance(path, str) else None

    def completed(self, foreign: Mapping[str, Any], beside: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the description with the configuration of the encoder from the pretrained file's."""
        return {**foreign, "model": {**model_section(foreign), _PRETRAINING: beside}}

    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Description:
        """Convert the fields to an encoder with its task; dropouts of the encoder stay those of pretraining.

        Raises:
            ValueError: if the encoder's configuration or a field is missing, or a field changes the computation in an
                unsupported way.
        """
        model = ForeignConfig(model_section(foreign), "model")
        pretraining = model.get(_PRETRAINING)
        if pretraining is None:
            raise ValueError(
                f"the file lacks the configuration of its encoder (model.{_PRETRAINING}); put the pretrained file "
                f"{model.get('model_path', '')!r} into the same folder"
            )
        model.refuse_unless("pooler_activation_fn", "tanh")
        model.refuse_unless("quant_noise_pq", 0)
        model.ignore("quant_noise_pq_block_size", "spectral_norm_classification_head", "no_pretrained_weights")
        model.ignore("model_path", "max_positions")
        dropout = model.get("pooler_dropout", 0.0)
        model.finish()
        own = {name.removeprefix("model."): shape for name, shape in shapes.items()}
        student = self.pretrained.config(pretraining, own).student.unmasked()
        count = shapes[f"{_HEADS}{_head(shapes)}{_LAST}"][0]
        task: TextClassification | TextRegression = TextClassification(dropout=dropout)
        labels: Labels = Classes(tuple(map(str, range(count))))
        if _is_regression(foreign):
            task, labels = TextRegression(dropout=dropout), Number()
        return Description(model=student, task=task, labels=labels)

    def layout(self, description: Description, shapes: Shapes) -> Layout:
        """Return the key table of a file of this model."""
        student, _ = own_parts(description)
        head = f"{_HEADS}{_head(shapes)}"
        rules = self.pretrained.encoder_rules(student, "encoder")
        rules += [rule for part in ("dense", "out_proj") for rule in both(f"{head}.{part}", part)]
        return Layout(table=KeyTable(rules), prefixes=("model.",))


def _head(shapes: Shapes) -> str:
    """Name of the only head."""
    found = [name.removeprefix(_HEADS).removesuffix(_LAST) for name in shapes if name.startswith(_HEADS)]
    names = sorted({name for name in found if f"{_HEADS}{name}{_LAST}" in shapes})
    if len(names) != 1:
        raise ValueError(f"the file must have one classification head, not {', '.join(names) or 'none'}")
    return names[0]


def _is_regression(foreign: Mapping[str, Any]) -> bool:
    sections = (foreign.get("task"), foreign.get("criterion"))
    return any(bool(one.get("regression_target")) for one in sections if isinstance(one, Mapping))


converters = (FineTunedTextFormat(),)
