"""Texts with labels as the data of a recipe: files and columns, tokens, and batches within limits."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from attrs import evolve, field, frozen
from attrs.validators import ge, lt, min_len, optional
from torch import Tensor

from d2v.core.changes import may_change
from d2v.core.data import BudgetPlan, Contents, DataError, Loader, Splits, item_error, item_list
from d2v.core.data.holding_out import HoldingOut
from d2v.core.data.random_order import RandomOrderPlan
from d2v.core.labels import Classes, Labels, Number
from d2v.core.model import AdapterConfig, Batch, ModalityAdapter
from d2v.core.paths import PathText
from d2v.text.config import TextAdapterConfig
from d2v.text.sentences.glue import GlueTask
from d2v.text.sentences.limits import short_enough, token_limit
from d2v.text.sentences.opening import open_texts
from d2v.text.sentences.samples import Encoded, SentenceSamples, collate, few_ids, numbered, padded, unlabelled
from d2v.text.sentences.text_set import Texts, TextSet
from d2v.text.tokenizing import Tokenizer, check_adapter, has_tokenizer, read_tokenizer
from d2v.text.tokenizing.reading import tokenizer_of_model

__all__ = ["SentenceDataConfig"]

_LENGTH = 512


@frozen(kw_only=True, slots=False)
class SentenceDataConfig:
    """Texts, or pairs of texts, with a label each; one a row of a table or a line of a file.

    A text becomes `<s> text </s>`, a pair `<s> text </s> </s> second </s>`. Evaluation leaves nothing out.

    Args:
        path: a file, or a folder with a file for each split (`train.csv`, `val.csv`, `test.csv`): `.csv`, `.tsv` (not
            quoted), `.jsonl` with an object a line, or `.txt` with a text a line. A column `split` of a single file
            divides it.
        glue: task of GLUE whose official files are in the folder; null = any files.
        text: column of the text; null = found by its name, such as `text` or `sentence`.
        text_pair: column of the second text; null = none, or found by its name, such as `sentence2`.
        label: column of the label; null = found by its name, such as `label`.
        header: whether `.csv` and `.tsv` files name their columns; otherwise these are named by their numbers, from 1.
        tokenizer: folder with the files of a tokenizer, for a model that has none; null = that of the model.
        max_length: longest sample in tokens; null = that of the model.
        cut: whether longer training texts are cut; otherwise they are left out, as published. Evaluation cuts them.
        max_tokens: limit of texts x longest text of a batch on one rank, in tokens; it holds together with the limit of
            texts (`train.batch_size`); null = only that one holds.
        num_buckets: training batches have texts of similar length, shuffled within this number of buckets; 0 = texts of
            any length, in one random order of the run, as published.
        per_class: train on this number of texts of each class, drawn by the seed; null = on all.
        hold_out: fraction held out as the split `test` if the data has no split to report on; selected by a hash of the
            texts, in each class (see `d2v.core.data.HoldOut`). The rest is `train`. 0 = nothing; null = 0.2.
        hold_out_seed: seed of the held-out selection.

    Raises:
        ValueError: if a value is out of its range.

    >>> SentenceDataConfig(path="reviews.csv").preparation()
    {}
    """

    inherited: ClassVar[tuple[str, ...]] = ("tokenizer", "hold_out", "hold_out_seed")

    path: PathText = field(validator=min_len(1), metadata=may_change("data"))
    glue: GlueTask | None = None
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    header: bool = True
    tokenizer: PathText | None = None
    max_length: int | None = field(default=None, validator=optional(ge(8)))
    cut: bool = True
    max_tokens: int | None = field(default=None, validator=optional(ge(1)))
    num_buckets: int = field(default=0, validator=ge(0))
    per_class: int | None = field(default=None, validator=optional(ge(1)))
    hold_out: float | None = field(default=None, validator=optional([ge(0), lt(1)]))
    hold_out_seed: int = field(default=0, validator=ge(0))

    # Of the model, see `with_files` and `with_adapter`; not settings.
    _files: ClassVar[Mapping[str, bytes]] = {}
    _positions: ClassVar[int | None] = None

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
        """Build the loader of a split; its texts are tokenized once.

        Args:
            split: name of the split; None = all texts.
            batch_size: limit of texts in a batch of this rank.
            seed: seed of the run.
            rank: rank of this process.
            world_size: number of processes that share the split.
            training: True = endless and shuffled; False = one pass, by length.
            labels: labels of the batches; None = in evaluation the data's own classes, if any.

        Raises:
            MissingExtraError: if tokenizers is not installed.
            DataError: if texts or split do not exist, they have no such labels, there is no tokenizer, a text is too
                long for a batch, or a class has fewer texts than `per_class`.
        """
        split, source, kept = self._held_out.open_split(split)
        encoded = self._encoded(split, source)
        kept = torch.arange(len(source)) if kept is None else kept
        numbers = self._numbers(source, labels, training=training)
        if training and self.per_class is not None:
            kept = few_ids(self.path, source, numbers, self.per_class, seed=seed, among=kept)
        lengths = encoded.lengths()
        kept = short_enough(self.path, kept, lengths, self._longest, leave_out=training and not self.cut)
        counted = lengths[kept].clamp(max=self._longest)
        limit = token_limit(self.path, source, kept, counted, self.max_tokens, training=training)
        samples = SentenceSamples(source, encoded, kept=kept, max_length=self._longest, labels=numbers)
        shares: dict[str, Any] = {"max_tokens": limit, "max_samples": batch_size, "seed": seed}
        shares |= {"rank": rank, "world_size": world_size}
        plan: BudgetPlan | RandomOrderPlan
        if training and not self.num_buckets:
            plan = RandomOrderPlan(lengths=counted, **shares)
        else:
            plan = BudgetPlan(
                lengths=counted, num_buckets=self.num_buckets, shuffle=training, drop_last=training, **shares
            )
        return Loader(samples, collate, plan, endless=training)

    def prepare(self, items: Iterable[Any]) -> Batch:
        """Prepare given texts as in evaluation.

        Args:
            items: strings, or pairs of strings.

        Raises:
            MissingExtraError: if tokenizers is not installed.
            DataError: naming the item, if one is neither or cannot be encoded; if there are none or no tokenizer.
        """
        rows = []
        for index, item in enumerate(item_list(items)):
            parts = [item] if isinstance(item, str) else list(item) if isinstance(item, tuple | list) else []
            if len(parts) not in (1, 2) or not all(isinstance(part, str) for part in parts):
                raise item_error(index, item, "must be a string, or a pair of strings")
            texts = Texts(texts=[parts[0].strip()], pairs=[parts[1].strip()] if len(parts) > 1 else None)
            try:
                rows.append(Encoded.of(texts, self._tokenizer).sample(0, self._longest))
            except ValueError as error:
                raise item_error(index, item, str(error)) from error
        return Batch(source=padded(rows))

    def preparation(self) -> Mapping[str, Any]:
        """Nothing: what prepares texts is the tokenizer, which is one of the model's files."""
        return {}

    def files(self) -> Mapping[str, bytes]:
        """The files of the tokenizer."""
        return self._tokenizer.files()

    def with_files(self, files: Mapping[str, bytes]) -> Self:
        """Return the same configuration with the tokenizer of a model, if the files have one."""
        return self._with("_files", files)

    def with_adapter(self, adapter: AdapterConfig) -> Self:
        """Return the same configuration for a model with this adapter: texts have at most its positions."""
        return self._with("_positions", getattr(adapter, "max_length", None))

    def contents(self) -> Contents:
        """Describe the texts and what is not used.

        Raises:
            DataError: if the files do not exist or cannot be used.
        """
        return self._held_out.described(self._set.contents(), labelled=self._is_labelled)

    def splits(self) -> Splits:
        """The splits by their use; of GLUE, results are reported on the split to choose on, which is `dev`.

        Raises:
            DataError: if the files do not exist or cannot be used.
        """
        return self._held_out.splits()

    def labels(self, wanted: type[Labels]) -> Labels:
        """The labels of the training split: classes, sorted by name, or numbers.

        Raises:
            DataError: if there is no training split, or it has no such labels.
        """
        source = self._set.open(self._held_out.found.train)
        if source.given is None or wanted not in (Classes, Number):
            raise unlabelled(self.path, wanted, self.label)
        labels: Labels = Classes(source.classes()) if wanted is Classes else Number()
        numbered(self.path, source, labels, label=self.label)  # raises if a label is no number
        return labels

    def match(self, adapter: ModalityAdapter) -> None:
        """Check that an adapter takes the ids of the tokenizer; raises `DataError` if not."""
        check_adapter(adapter, self._tokenizer, path=self.path)

    def matching(self, adapter: AdapterConfig) -> AdapterConfig:
        """Return the adapter's configuration, which texts do not change.

        Raises:
            DataError: if it does not take token ids, or has fewer positions than `max_length`.
        """
        if not isinstance(adapter, TextAdapterConfig):
            raise DataError(f"data.path={self.path!r} gives token ids, but the model has a {type(adapter).__name__}")
        if self.max_length is not None and self.max_length > adapter.max_length:
            raise DataError(
                f"data.max_length={self.max_length}, but the model takes at most {adapter.max_length} tokens; set "
                "data.max_length=null"
            )
        return adapter

    def _with(self, name: str, value: Any) -> Self:
        known = {"_files": self._files, "_positions": self._positions, name: value}
        made = evolve(self)
        for key, own in known.items():
            object.__setattr__(made, key, own)
        return made

    @property
    def _longest(self) -> int:
        return self.max_length or self._positions or _LENGTH

    @property
    def _is_labelled(self) -> bool:
        return any(part.given is not None for part in self._set.parts.values())

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        """The tokenizer of the model, else the one that is named."""
        own = tokenizer_of_model(self._files)
        named = None
        if self.tokenizer is not None and (own is None or has_tokenizer(self.tokenizer)):
            named = read_tokenizer(self.tokenizer)
        if own is not None and named is not None and own != named:
            raise DataError(
                f"data.tokenizer={self.tokenizer!r} is not the tokenizer that the model was trained with; leave it out"
            )
        found = own or named
        if found is None:
            raise DataError(
                "the model has no tokenizer; set data.tokenizer to a folder with vocab.json and merges.txt, or with "
                "encoder.json, vocab.bpe and dict.txt as published for RoBERTa"
            )
        return found

    @cached_property
    def _set(self) -> TextSet:
        return open_texts(
            self.path, glue=self.glue, text=self.text, pair=self.text_pair, label=self.label, header=self.header
        )

    @cached_property
    def _held_out(self) -> HoldingOut[Texts]:
        return HoldingOut(
            path=self.path,
            found=self._set.splits(),
            opened=self._set.open,
            fraction=self.hold_out,
            seed=self.hold_out_seed,
            unit="texts",
        )

    @cached_property
    def _known(self) -> dict[str | None, Encoded]:
        return {}

    def _encoded(self, split: str | None, source: Texts) -> Encoded:
        if split not in self._known:
            self._known[split] = Encoded.of(source, self._tokenizer)
        return self._known[split]

    def _numbers(self, source: Texts, labels: Labels | None, *, training: bool) -> Tensor | None:
        if labels is not None:
            return numbered(self.path, source, labels, label=self.label)
        return None if training else source.labels()
