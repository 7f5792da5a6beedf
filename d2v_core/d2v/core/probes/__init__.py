"""Probes: measure frozen features by nearest neighbours, linear classifiers and recognisers; collect the features."""

from d2v.core.probes.encoding import Layers, collect_features, encode_layers
from d2v.core.probes.features import Features, raw_features
from d2v.core.probes.few_labels import FewLabelResult, draw_labels, few_label_probe
from d2v.core.probes.labelled import Labelled, hold_out
from d2v.core.probes.linear import STRENGTHS, LinearClassifier, LinearResult, fit_linear, linear_probe
from d2v.core.probes.neighbours import knn_accuracy, knn_predictions, nearest_samples
from d2v.core.probes.pooling import POOLINGS, NoClassTokenError, pool_layer
from d2v.core.probes.probing import Probing
from d2v.core.probes.results import Case, ProbeResults, Score
from d2v.core.probes.sequences import SequenceProbing, Sequences, encoded_sequences, local_sequences
from d2v.core.probes.windows import cut_windows, encode_windows

__all__ = [
    "POOLINGS",
    "STRENGTHS",
    "Case",
    "Features",
    "FewLabelResult",
    "Labelled",
    "Layers",
    "LinearClassifier",
    "LinearResult",
    "NoClassTokenError",
    "ProbeResults",
    "Probing",
    "Score",
    "SequenceProbing",
    "Sequences",
    "collect_features",
    "cut_windows",
    "draw_labels",
    "encode_layers",
    "encode_windows",
    "encoded_sequences",
    "few_label_probe",
    "fit_linear",
    "hold_out",
    "knn_accuracy",
    "knn_predictions",
    "linear_probe",
    "local_sequences",
    "nearest_samples",
    "pool_layer",
    "raw_features",
]
