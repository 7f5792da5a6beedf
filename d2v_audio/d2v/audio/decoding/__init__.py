"""Decoding of CTC models: the best path, or beam search with a lexicon and a language model.

The package takes scores of frames and knows nothing of models. The search itself is that of flashlight-text, and n-gram
models are read by KenLM; both are imported when a search is built (extra `decode`).
"""

from d2v.audio.decoding.config import Beam, DecoderConfig, Greedy
from d2v.audio.decoding.greedy import best_path
from d2v.audio.decoding.hypothesis import Hypothesis
from d2v.audio.decoding.language_models import load_lm
from d2v.audio.decoding.lexicon import Lexicon, read_lexicon
from d2v.audio.decoding.search import BeamSearch, SearchSpace, searched_words
from d2v.audio.decoding.transformer_lm import TransformerLM
from d2v.audio.decoding.transformer_lm_file import read_transformer_lm

__all__ = [
    "Beam",
    "BeamSearch",
    "DecoderConfig",
    "Greedy",
    "Hypothesis",
    "Lexicon",
    "SearchSpace",
    "TransformerLM",
    "best_path",
    "load_lm",
    "read_lexicon",
    "read_transformer_lm",
    "searched_words",
]
