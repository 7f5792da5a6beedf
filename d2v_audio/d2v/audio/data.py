"""Recordings as the data of a recipe: source, reading, crops, batches by number of samples, and labels.

`sources` finds the recordings, `samples` makes samples and batches, and `d2v.core.data` handles order and broken files.
soundfile and torchaudio are imported when they are needed, so this module can be imported without the extra.
"""

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from attrs import evolve, field, frozen
from attrs.validators import ge, gt, lt, min_len, optional

from d2v.audio.config import LogMelAdapterConfig, WaveformAdapterConfig
from d2v.audio.log_mel import LogMelFront
from d2v.audio.recordings.batching import counted_lengths, long_enough, token_limit, warn_of_cropped_text
from d2v.audio.recordings.dictionary import find_dictionary, parse_dictionary
from d2v.audio.recordings.items import item_waveforms
from d2v.audio.recordings.labelling import class_names_beside, labelling_of, unlabelled
from d2v.audio.recordings.reading import Reader
from d2v.audio.recordings.samples import Collate, RecordingSamples, padded
from d2v.audio.recordings.sources import Recordings, RecordingSet, open_recordings
from d2v.audio.recordings.transcripts import LETTERS
from d2v.core.changes import may_change
from d2v.core.data import BudgetPlan, Contents, DataError, Loader, Splits
from d2v.core.data.holding_out import HoldingOut
from d2v.core.labels import Classes, Labels, MultiLabel, Symbols
from d2v.core.model import AdapterConfig, Batch, ModalityAdapter
from d2v.core.paths import PathText
from d2v.core.validators import must

__all__ = ["AudioDataConfig"]


@frozen(kw_only=True)
class AudioDataConfig:
    """Recordings of a folder, of manifests or of a list; the defaults are the published preprocessing.

    Batches have recordings of similar length. In training without labels, all recordings of a batch are cropped to the
    shortest at random places; otherwise they are padded with zeros, with a padding mask. Evaluation crops nothing and
    leaves nothing out; its batches are in the order of the lengths.

    Args:
        path: one of
            a folder of recordings, with a folder for each split (`train`, `dev-other`, `test` ...) or without, and a
            subfolder for each class; or a LibriSpeech tree, whose transcripts (`*.trans.txt`) are read;
            a manifest of the field (`.tsv`: root folder, then path and number of samples in each line), or a folder
            with one for each split; labels are in files beside it: `.ltr`, `.wrd`, `.lbl`;
            a recording or a list of recordings: `.txt` with one path a line, `.csv` or `.tsv` with the column `path`
            and, optionally, `text`, `label` and `split`; paths are relative to the list.
        sample_rate: of the model's input in Hz.
        resample: whether recordings of another rate are resampled; otherwise they count as broken.
        mixdown: whether several channels are averaged; otherwise such recordings count as broken.
        normalize: whether each recording is scaled to zero mean and unit variance over its whole length, as all
            data2vec models need.
        label_file: ending of the label files: `ltr` = letters, also spelled from words; with another ending, such as
            `phn`, units are separated by spaces.
        dictionary: file with the symbols of labels; `librispeech` = the published letters; None = the file
            `dict.LABEL_FILE.txt` beside the recordings, otherwise the symbols of the training transcripts.
        train_split: split to train on, or several joined by `+`; None = `train`, otherwise all that are named for
            training, such as `train-clean-100` and `train-other-500`.
        min_samples: training skips shorter recordings, in samples at `sample_rate`.
        max_samples: training crops longer recordings at random places; None = no crop.
        max_tokens: limit of recordings x longest recording of a batch on one rank, in samples; in evaluation, a longer
            recording is a batch of its own. It holds together with the limit of recordings (`train.batch_size`); None =
            only that one holds. The default is that of the published evaluation.
        batch_multiple: batches of that many recordings or more have a multiple of it.
        num_buckets: recordings are shuffled within this number of buckets of similar length; more buckets mean less
            padding. 0 = only among recordings of equal length, as published.
        pad: whether training without labels pads as well, instead of cropping to the shortest.
        hold_out: fraction held out as the split `test` if the data has no split to report on; selected by a hash of the
            names, in each class (see `d2v.core.data.HoldOut`). The rest is `train`, both are `train+test`. 0 = nothing.
            None = 0.2, but pretraining uses all recordings, as it reads no labels.
        hold_out_seed: seed of the held-out selection.
        num_workers: loader processes, at most one for each CPU core; 0 = load in the training process.

    Raises:
        ValueError: if a value is out of its range.

    >>> AudioDataConfig(path="-").prepare([(torch.randn(800), 16000), (torch.randn(600), 16000)]).source.shape
    torch.Size([2, 800])
    """

    inherited: ClassVar[tuple[str, ...]] = (
        "sample_rate",
        "resample",
        "mixdown",
        "normalize",
        "label_file",
        "hold_out",
        "hold_out_seed",
    )

    path: PathText = field(validator=min_len(1), metadata=may_change("data"))
    sample_rate: int = field(default=16000, validator=ge(1000))
    resample: bool = False
    mixdown: bool = False
    normalize: bool = True
    label_file: str = field(default=LETTERS, validator=min_len(1))
    dictionary: PathText | None = None
    train_split: str | None = None
    min_samples: int = field(default=0, validator=ge(0))
    max_samples: int | None = field(default=None, validator=optional(gt(0)))
    max_tokens: int | None = field(default=4_000_000, validator=must(lambda most: most is None or most > 0, "above 0"))
    batch_multiple: int = field(default=1, validator=ge(1))
    num_buckets: int = field(default=0, validator=ge(0))
    pad: bool = False
    hold_out: float | None = field(default=None, validator=optional([ge(0), lt(1)]))
    hold_out_seed: int = field(default=0, validator=ge(0))
    num_workers: int = field(default=4, validator=ge(0), metadata=may_change("free"))

    @max_samples.validator
    def _check_limits(self, _: object, max_samples: int | None) -> None:
        if max_samples is not None and max_samples < max(self.min_samples, self._reader.shortest):
            raise ValueError(
                f"max_samples={max_samples} must be at least min_samples={self.min_samples}, and a frame of "
                f"{self._reader.shortest} samples"
            )

    def build(
        self,
        split: str | None,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        training: bool = False,
        labels: Labels | None = None,
    ) -> Loader[Any]:
        """Build the loader of a split. Headers are read once, unless a manifest has the lengths.

        Args:
            split: name of the split; None = all recordings.
            batch_size: limit of recordings in a batch of this rank.
            seed: seed of the run.
            rank: rank of this process.
            world_size: number of processes that share the split.
            training: True = endless and shuffled; False = one pass, without crops.
            labels: labels of the batches; None = in evaluation the data's own classes, if any.

        Raises:
            MissingExtraError: if soundfile or torchaudio is not installed.
            DataError: if the recordings or the split do not exist, they have no such labels, all are too short, or one
                is too long for a batch.
        """
        split, source, kept = self._held_out.open_split(split)
        if labels is None and not training and source.classes:
            labels = Classes(self._set.numbering(split, source))
        lengths = self._set.lengths(split, source, self._reader)
        kept = torch.arange(len(source)) if kept is None else kept
        if training:
            kept = long_enough(self.path, kept, lengths, self.min_samples)
        labelling = None
        if labels is not None:
            labelling = labelling_of(self.path, source, labels, self.label_file, kept.tolist())
            if training and isinstance(labels, Symbols):
                warn_of_cropped_text(self.path, lengths[kept], self.max_samples)
        counted = counted_lengths(lengths[kept], self.max_samples if training else None)
        plan = BudgetPlan(
            lengths=counted,
            max_tokens=token_limit(self.path, source, kept, counted, self.max_tokens, cropped=training),
            max_samples=batch_size,
            multiple=self.batch_multiple,
            num_buckets=self.num_buckets,
            seed=seed,
            shuffle=training,
            drop_last=training,
            rank=rank,
            world_size=world_size,
        )
        samples = RecordingSamples(
            source,
            self._reader,
            kept=kept,
            stated=not self.resample,
            max_samples=self.max_samples if training else None,
            labelling=labelling,
        )
        collate = Collate(crop=training and labels is None and not self.pad, labelling=labelling)
        # More workers than CPU cores would only wait for each other.
        workers = min(self.num_workers, os.cpu_count() or 1)
        return Loader(samples, collate, plan, endless=training, num_workers=workers)

    def prepare(self, items: Iterable[Any]) -> Batch:
        """Prepare given recordings as in evaluation: whole, padded to the longest.

        Args:
            items: paths; pairs (array, rate in Hz) with an array `s` or `s c`, or a tensor `s` or `c s`; or arrays and
                tensors alone, at the model's rate.

        Raises:
            MissingExtraError: if soundfile or torchaudio is not installed.
            DataError: naming the item, if one is broken or not a recording; if there are none.
        """
        _require_extra()
        source, padding = padded(list(item_waveforms(items, self._reader)))
        return Batch(source=source, padding=padding)

    def preparation(self) -> Mapping[str, Any]:
        """Rate and normalisation."""
        return {"sample_rate": self.sample_rate, "normalize": self.normalize}

    def files(self) -> Mapping[str, bytes]:
        """The dictionary, if the training split has transcripts."""
        found = self._dictionary
        return {} if found is None else {f"dict.{self.label_file}.txt": found[1].encode()}

    def contents(self) -> Contents:
        """Describe the recordings and the files that are not used; opens no recording.

        Raises:
            MissingExtraError: if soundfile or torchaudio is not installed.
            DataError: if the path does not exist, contains no recordings, or its folders are ambiguous.
        """
        found = self._set.contents(self.sample_rate, self._held_out.found.train)
        return self._held_out.described(found, labelled=self._set.has_labels)

    def splits(self) -> Splits:
        """The splits by their use; of several for one use, the last in sorted order (`dev_other`, `test_other`).

        With a split to test on, the validation split is for choosing settings; without, results are reported on it. If
        there is neither, they are reported on held-out recordings (`hold_out`).

        Raises:
            DataError: if the path or `train_split` does not exist.
        """
        return self._held_out.splits()

    def labels(self, wanted: type[Labels]) -> Labels:
        """The labels of the training split: classes, several classes (`.lbl`) or symbols.

        Raises:
            MissingExtraError: if soundfile or torchaudio is not installed.
            DataError: if there is no training split, or it has no such labels.
        """
        source = self._set.open(self._held_out.found.train)
        if wanted is Classes and source.classes:
            return Classes(source.classes)
        if wanted is MultiLabel and source.manifests and source.manifests[0].beside("lbl").is_file():
            return MultiLabel(class_names_beside(source.manifests[0]))
        if wanted is Symbols and self._dictionary is not None:
            return parse_dictionary(self._dictionary[1], self._dictionary[0])
        raise unlabelled(self.path, wanted, self.label_file)

    def match(self, adapter: ModalityAdapter) -> None:
        """Check that an adapter takes recordings of this rate; raises `DataError` if not."""
        if adapter.modality != "audio":
            raise self._other(adapter)
        rate = adapter.front.sample_rate if isinstance(adapter.front, LogMelFront) else self.sample_rate
        if rate != self.sample_rate:
            raise DataError(
                f"data.sample_rate={self.sample_rate}, but the model takes {rate}; set data.sample_rate={rate}"
            )

    def matching(self, adapter: AdapterConfig) -> AdapterConfig:
        """Return the adapter's configuration for this rate; raises `DataError` if it does not take recordings."""
        if isinstance(adapter, LogMelAdapterConfig):
            return evolve(adapter, sample_rate=self.sample_rate)
        if not isinstance(adapter, WaveformAdapterConfig):
            raise self._other(adapter)
        return adapter

    def _other(self, adapter: object) -> DataError:
        return DataError(f"data.path={self.path!r} gives recordings, but the model has a {type(adapter).__name__}")

    @cached_property
    def _set(self) -> RecordingSet:
        """The recordings; a folder is scanned once for each configuration."""
        _require_extra()
        return open_recordings(self.path)

    @cached_property
    def _held_out(self) -> HoldingOut[Recordings]:
        return HoldingOut(
            path=self.path,
            found=self._set.splits(self.train_split),
            opened=self._set.open,
            fraction=self.hold_out,
            seed=self.hold_out_seed,
            unit="recordings",
        )

    @cached_property
    def _dictionary(self) -> tuple[str, str] | None:
        """Name and text of the dictionary; None = the training split has no transcripts."""
        train = self._held_out.found.train
        if not self._set.has_training_split(train):
            return None
        transcripts = self._set.open(train).transcripts(self.label_file)
        if transcripts is None:
            return None
        return find_dictionary(self.dictionary, self._set.folder, self.label_file, transcripts)

    @property
    def _reader(self) -> Reader:
        return Reader(
            sample_rate=self.sample_rate, resample=self.resample, mixdown=self.mixdown, normalize=self.normalize
        )


def _require_extra() -> None:
    from d2v.audio import modality

    modality.require_extra()
