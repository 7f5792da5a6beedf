"""data2vec for text."""

from d2v.core.modality import InputForm, Modality
from d2v.text import convert, convert_fine_tuned, hugging_face
from d2v.text.adapter import TextAdapter
from d2v.text.config import TextAdapterConfig, example_ids, text_lengths
from d2v.text.data import TextDataConfig
from d2v.text.data_commands import tokenizer, tokens
from d2v.text.download_commands import glue, openwebtext
from d2v.text.example import example_batch
from d2v.text.sentences.data import SentenceDataConfig
from d2v.text.tasks.classification import SentenceClassifier, TextClassification, TextRegression
from d2v.text.tokens import TokenEmbedding
from d2v.text.words import bag_of_words

__all__ = [
    "SentenceClassifier",
    "SentenceDataConfig",
    "TextAdapter",
    "TextAdapterConfig",
    "TextClassification",
    "TextDataConfig",
    "TextRegression",
    "TokenEmbedding",
    "modality",
]

modality = Modality(
    name="text",
    description="text: subword tokens, masked one by one (2.0) or in spans (1.0)",
    extra="d2v[text]",
    requires=("tokenizers",),
    optional={"d2v[datasets]": ("datasets",)},
    adapters={"tokens": TextAdapterConfig},
    data={"tokens": TextDataConfig, "sentences": SentenceDataConfig},
    samples="sentences",
    data_commands={"tokens": tokens, "tokenizer": tokenizer, "glue": glue, "openwebtext": openwebtext},
    recipes="d2v.text.recipes",
    catalogue="d2v.text",
    converters=(*convert.converters, *convert_fine_tuned.converters, *hugging_face.converters),
    input=InputForm(name="input_ids", example=example_ids, lengths=text_lengths),
    tasks={"classification": TextClassification, "regression": TextRegression},
    example=example_batch,
    raw_name="bag of words",
    raw_features=bag_of_words,
)
