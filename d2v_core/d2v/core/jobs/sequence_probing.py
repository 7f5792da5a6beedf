"""`d2v probe` on data whose labels are sequences of symbols: error rates of small recognisers on frozen features."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial, reduce
from operator import or_

from d2v.core.data import DataConfig
from d2v.core.jobs.kernels import InferenceKernels
from d2v.core.jobs.labelled_splits import LabelledSplits
from d2v.core.jobs.running import counting
from d2v.core.labels import Symbols
from d2v.core.modality import Modality
from d2v.core.model import Backbone, Batch, Local, Student
from d2v.core.probes import (
    Layers,
    ProbeResults,
    SequenceProbing,
    Sequences,
    encoded_sequences,
    local_sequences,
)
from d2v.core.probes.encoding import evaluating


def probe_sequences(
    probing: SequenceProbing,
    splits: LabelledSplits,
    encoders: Mapping[str, Student],
    *,
    layers: Mapping[str, Layers],
    depth: int,
    baselines: bool,
    data: DataConfig,
    modality: Modality,
    kernels: InferenceKernels,
    progress: bool,
) -> ProbeResults:
    """Error rates on "test", of the raw input, an untrained front end and the encoders.

    Args:
        probing: settings of the recognisers.
        splits: of the data, labelled with symbols.
        encoders: untrained and pretrained ones, by name.
        layers: choices of layers of each encoder.
        depth: number of blocks of the encoders.
        baselines: whether to measure the raw input and the untrained front end.
        data: configuration of the data.
        modality: the record, which may have features of the raw input.
        kernels: forms of computation of the encoders.
        progress: whether to show progress on standard error.

    Raises:
        ValueError: if the symbols have no blank, or a layer does not exist.
        DataError: if no test samples are labelled.
    """
    labels = splits.labels
    assert isinstance(labels, Symbols)  # chosen by the caller
    metric = "symbol error rate" if labels.boundary is None else "character error rate"

    def measured(name: str, read: Callable[[Iterable[Batch]], Mapping[str, Sequences]]) -> ProbeResults:
        parts = splits.read(read, progress=progress)
        with counting(len(parts["train"]) * probing.heads, progress) as advance:
            return probing.measure(name, parts, labels=labels, metric=metric, advance=advance)

    def local(name: str, read: Callable[[Batch], Local], batches: Iterable[Batch]) -> Mapping[str, Sequences]:
        return {name: local_sequences(read, batches, labels=labels)}

    def encoded(encoder: Student, batches: Iterable[Batch]) -> Mapping[str, Sequences]:
        with kernels.of(encoder, "fp32"):
            return encoded_sequences(encoder, batches, labels=labels, layers=layers, depth=depth)

    found: list[ProbeResults] = []
    if baselines and (raw := modality.raw_frames) is not None:
        found.append(measured("raw", partial(local, "-", lambda batch: raw(batch, data))))
    if baselines and isinstance(untrained := encoders.get("untrained"), Backbone):
        found.append(measured("untrained", partial(local, "front end", partial(_front_end, untrained))))
    for name, encoder in encoders.items():
        found.append(measured(name, partial(encoded, encoder)))
    return reduce(or_, found)


def _front_end(backbone: Backbone, batch: Batch) -> Local:
    front = backbone.adapter(batch.modality).front
    with evaluating(backbone):
        return front(batch.to(next(backbone.parameters()).device))
