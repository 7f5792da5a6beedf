"""Labels of recordings for a task: classes, several classes at a time, or sequences of symbols, with their batches."""

import csv
import logging
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from attrs import frozen
from torch import Tensor

from d2v.audio.recordings.manifests import Manifest
from d2v.audio.recordings.sources import Recordings
from d2v.audio.recordings.transcripts import BOUNDARY, Transcripts, read_lines
from d2v.core.data import DataError, escaped
from d2v.core.labels import Classes, Labels, MultiLabel, Symbols
from d2v.core.suggestions import nearest

DESCRIPTORS = "label_descriptors.csv"
_SHOWN = 5

_logger = logging.getLogger(__name__)


class Labelling(Protocol):
    """Labels by id."""

    def get(self, id: int) -> Any:
        """Label of a recording."""
        ...

    def collate(self, labels: Sequence[Any]) -> tuple[Tensor, Tensor | None]:
        """Labels of a batch, and their lengths if they have any."""
        ...


def labelling_of(path: str, source: Recordings, labels: Labels, label_file: str, ids: Sequence[int]) -> Labelling:
    """The labels of recordings, numbered as a task needs them.

    Args:
        path: name of the data in messages.
        source: the recordings.
        labels: numbering of the labels.
        label_file: ending of the files with units, see `Recordings.transcripts`.
        ids: the recordings that are used: all of them must have a label.

    Raises:
        DataError: if recordings have no such labels, or other ones than the numbering.
    """
    if isinstance(labels, Classes):
        return _class_labels(path, source, labels)
    if isinstance(labels, MultiLabel):
        return _several_labels(path, source, labels)
    if isinstance(labels, Symbols):
        return _symbol_labels(path, source, labels, label_file, ids)
    raise other_labels(path, type(labels))


def class_names_beside(manifest: Manifest) -> tuple[str, ...]:
    """Class names of `label_descriptors.csv`: lines of index, id and name, with or without a header; by their indices.

    Raises:
        DataError: if there is no such file, or it does not number its classes from 0.
    """
    path = manifest.file.with_name(DESCRIPTORS)
    rows = [row for row in csv.reader(read_lines(path)) if row]
    rows = rows if rows and rows[0][0].strip().isdigit() else rows[1:]
    try:
        names = {int(row[0]): row[2].strip() for row in rows}
    except (ValueError, IndexError) as error:
        raise DataError(f"{escaped(str(path))}: expected lines of index, id and name") from error
    if sorted(names) != list(range(len(rows))) or not rows:
        raise DataError(f"{escaped(str(path))}: the indices must be 0 to {len(rows) - 1}, each once")
    return tuple(names[number] for number in range(len(names)))


def unlabelled(path: str, wanted: type[Labels], label_file: str) -> DataError:
    """The error for recordings without the labels that a task needs."""
    how = {
        Classes: "put the recordings of each class in a separate folder below the split, or give a list (.csv) with "
        "the column label",
        MultiLabel: f"put a .lbl file and {DESCRIPTORS} next to the manifest",
        Symbols: f"put a .{label_file} or .wrd file next to the manifest, or give a list (.csv) with the column text, "
        "or transcripts as in LibriSpeech (*.trans.txt)",
    }
    if wanted not in how:
        return other_labels(path, wanted)
    return DataError(f"data.path={path!r} has no labels of this kind ({wanted.what}): {how[wanted]}")


def other_labels(path: str, wanted: type[Labels]) -> DataError:
    """The error for a task that needs labels which recordings never have."""
    return DataError(
        f"data.path={path!r}: recordings have {Classes.what}, {MultiLabel.what} or {Symbols.what}, but the task needs "
        f"{wanted.what}"
    )


@frozen
class _ClassLabels:
    source: Recordings
    numbers: list[int]

    def get(self, id: int) -> int:
        label = self.source.label(id)
        assert label is not None  # the source has classes
        return self.numbers[label]

    def collate(self, labels: Sequence[int]) -> tuple[Tensor, None]:
        return torch.tensor(labels), None


def _class_labels(path: str, source: Recordings, labels: Classes) -> _ClassLabels:
    if not source.classes:
        raise unlabelled(path, Classes, "")
    known = {name: number for number, name in enumerate(labels.names)}
    for name in source.classes:
        if name not in known:
            raise DataError(
                f"data.path={path!r} has a class {name!r}, which is not one of the model's {len(labels.names)} classes"
                f"{nearest(name, known)}"
            )
    return _ClassLabels(source, [known[name] for name in source.classes])


@frozen
class _SeveralLabels:
    numbers: list[list[int]]
    num_classes: int

    def get(self, id: int) -> Tensor:
        has = torch.zeros(self.num_classes, dtype=torch.bool)
        has[self.numbers[id]] = True
        return has

    def collate(self, labels: Sequence[Tensor]) -> tuple[Tensor, None]:
        return torch.stack(list(labels)), None


def _several_labels(path: str, source: Recordings, labels: MultiLabel) -> _SeveralLabels:
    found = [(manifest, manifest.label_lines("lbl")) for manifest in source.manifests]
    numbers: list[list[int]] = []
    for manifest, lines in found:
        if lines is not None:
            numbers += _class_numbers(manifest, lines, labels)
    if not found or len(numbers) < len(source):
        raise unlabelled(path, MultiLabel, "")
    return _SeveralLabels(numbers, labels.num_outputs)


def _class_numbers(manifest: Manifest, lines: Sequence[str], labels: MultiLabel) -> list[list[int]]:
    """Numbers of the classes in each line: start, end and indices."""
    name, own = manifest.beside("lbl"), class_names_beside(manifest)
    known = {one: number for number, one in enumerate(labels.names)}
    if missing := [one for one in own if one not in known]:
        raise DataError(f"{escaped(str(name))}: {missing[0]!r} is not one of the model's {len(known)} classes")
    numbers = []
    for number, line in enumerate(lines, 1):
        indices = line.split("\t")[-1].split(",")
        if not all(index.strip().isdigit() and int(index) < len(own) for index in indices):
            raise DataError(f"{escaped(str(name))}, line {number}: expected start, end and indices below {len(own)}")
        numbers.append([known[own[int(index)]] for index in indices])
    return numbers


@frozen
class _SymbolLabels:
    transcripts: Transcripts
    symbols: Symbols
    padding: int

    def get(self, id: int) -> list[int]:
        return self.symbols.numbers(self.transcripts.units(id))

    def collate(self, labels: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        rows = [torch.tensor(row, dtype=torch.long) for row in labels]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.padding)
        return padded, torch.tensor([len(row) for row in labels])


def _symbol_labels(
    path: str, source: Recordings, labels: Symbols, label_file: str, ids: Sequence[int]
) -> _SymbolLabels:
    transcripts = source.transcripts(label_file)
    if transcripts is None:
        raise unlabelled(path, Symbols, label_file)
    missing = [id for id in ids if transcripts.lines[id] is None]
    if missing:
        raise DataError(
            f"data.path={path!r}: {len(missing)} recordings have no transcript, the first is "
            f"{escaped(source.name(missing[0]))}; add the transcripts or remove the recordings"
        )
    _check_units(path, transcripts, labels, ids)
    return _SymbolLabels(transcripts, labels, labels.symbols.index(labels.specials[0]) if labels.specials else 0)


def _check_units(path: str, transcripts: Transcripts, labels: Symbols, ids: Sequence[int]) -> None:
    """Warn of units that are not in the dictionary.

    Raises:
        DataError: if there is no unknown symbol, or most of them are unknown: it is the dictionary of other text.
    """
    known = set(labels.symbols) - {labels.blank, *labels.specials}
    if transcripts.distinct(ids) <= known:
        return
    counts = transcripts.counts(ids)
    foreign = {unit: count for unit, count in counts.items() if unit not in known}
    shown = ", ".join(map(repr, sorted(foreign, key=lambda unit: -foreign[unit])[:_SHOWN]))
    total = sum(count for unit, count in counts.items() if unit != BOUNDARY)
    text = (
        f"data.path={path!r}: {sum(foreign.values())} of {total} symbols of the transcripts are not in the dictionary "
        f"of {len(labels.symbols)} ({shown}{', ...' if len(foreign) > _SHOWN else ''})"
    )
    if labels.unknown is None or 2 * sum(foreign.values()) > total:
        raise DataError(f"{text}; check upper and lower case, or give another data.dictionary")
    _logger.warning("%s; they count as %s", text, labels.unknown)
