"""Reader of the original toolkit's text classifiers on 2.0 models. Those on 1.0 models are refused by name."""

from collections.abc import Mapping
from typing import Any

from d2v.core.description import Description
from d2v.core.foreign import ForeignConfig, Layout, Rule, Shapes, Unpacked, both
from d2v.core.foreign.fairseq import FineTunedFormat, model_section, unpack
from d2v.core.labels import Classes, Labels, Number
from d2v.core.model import BackboneConfig, Data2VecConfig
from d2v.core.task import Task
from d2v.text.convert import multimodal_format
from d2v.text.tasks.classification import TextClassification, TextRegression

_HEADS, _LAST = "classification_heads.", ".out_proj.weight"


class SentenceReader:
    """Reads classification or regression of texts; dropouts of the encoder stay those of pretraining."""

    name = "classification"
    body = "model."
    head = ""

    def accepts(self, model: Mapping[str, Any]) -> bool:
        """Return whether the configuration is that of the task."""
        return model.get("_name") in (None, "data2vec_text_classification") and not (
            "prediction_mode" in model or "final_dropout" in model
        )

    def read(
        self, model: ForeignConfig, foreign: Mapping[str, Any], shapes: Shapes, pretrained: Data2VecConfig
    ) -> tuple[TextClassification | TextRegression, Labels]:
        """Return the task and its classes; a file has only their number."""
        del pretrained
        model.refuse_unless("pooler_activation_fn", "tanh")
        model.refuse_unless("quant_noise_pq", 0)
        model.ignore("quant_noise_pq_block_size", "spectral_norm_classification_head", "no_pretrained_weights")
        model.ignore("max_positions", "data")
        dropout = model.get("pooler_dropout", 0.0)
        if _is_regression(foreign):
            return TextRegression(dropout=dropout), Number()
        count = shapes[f"{_HEADS}{_head(shapes)}{_LAST}"][0]
        return TextClassification(dropout=dropout), Classes(tuple(map(str, range(count))))

    def encoder(self, model: ForeignConfig, config: BackboneConfig) -> BackboneConfig:
        """Return the encoder unchanged."""
        return config

    def data(self, foreign: Mapping[str, Any]) -> None:
        """Return None: the toolkit's files name no tokenizer."""

    def rules(self, task: Task, shapes: Shapes) -> list[Rule]:
        """Return the key table of the only head."""
        head = f"{_HEADS}{_head(shapes)}"
        return [rule for part in ("dense", "out_proj") for rule in both(f"{head}.{part}", part)]


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


class FormerClassifierFormat:
    """A classifier on a 1.0 text model, which the toolkit stores as a RoBERTa model.

    The toolkit loads the student of a 1.0 model into its RoBERTa class to fine-tune it. The fields of that class are
    not known here, so the number of heads and the norms of such a file would be guesses.
    """

    name = "data2vec 1.0 text, classification"

    def unpack(self, contents: Mapping[str, Any]) -> Unpacked | None:
        """Return the model in a checkpoint of the toolkit."""
        return unpack(contents)

    def accepts(self, foreign: Mapping[str, Any]) -> bool:
        """Return whether the model is of that class."""
        model = model_section(foreign)
        return any(str(model.get(field)).startswith("roberta") for field in ("_name", "arch"))

    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Description:
        """Refuse the file; raises `ValueError`."""
        heads = [name.split(".")[1] for name in shapes if name.startswith(_HEADS) and name.endswith(_LAST)]
        raise ValueError(
            f"it is a RoBERTa model with {'the head ' + ', '.join(heads) if heads else 'no classification head'}, as "
            "1.0 text models are fine-tuned, and the fields of that class are not read; fine-tune the pretrained file "
            "instead: d2v finetune text/v1-glue-cola model=PRETRAINED"
        )

    def layout(self, description: Description, shapes: Shapes) -> Layout:
        """Never called, since `config` raises."""
        raise NotImplementedError


converters = (FineTunedFormat(multimodal_format, SentenceReader()), FormerClassifierFormat())
