"""Transformer blocks, encoder, decoder and position modules that several modalities share."""

from d2v.core.nn.alibi import Alibi
from d2v.core.nn.attention import Attention
from d2v.core.nn.block import TransformerBlock
from d2v.core.nn.convolution import ConvDecoder
from d2v.core.nn.distances import DistanceBias, Distances
from d2v.core.nn.dropout import Dropout
from d2v.core.nn.encoder import TransformerEncoder
from d2v.core.nn.initialisation import initialise
from d2v.core.nn.sinks import LayerFeatures, LayerSink

__all__ = [
    "Alibi",
    "Attention",
    "ConvDecoder",
    "DistanceBias",
    "Distances",
    "Dropout",
    "LayerFeatures",
    "LayerSink",
    "TransformerBlock",
    "TransformerEncoder",
    "initialise",
]
