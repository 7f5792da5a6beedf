"""Text as the data of a recipe: token files, or text files that are tokenised at the start, in blocks of tokens.

`corpus` holds files, blocks and samples; `d2v.core.data` handles order and broken samples. tokenizers is imported when
it is needed, so this module can be imported without the extra.
"""

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from attrs import evolve, field, frozen
from attrs.validators import ge, min_len, optional

from d2v.core.changes import may_change
from d2v.core.data import BudgetPlan, Contents, DataError, FixedPlan, Loader, Plan, Splits, item_error, item_list
from d2v.core.data.folders.layout import splits_by_use
from d2v.core.labels import Labels
from d2v.core.model import AdapterConfig, Batch, ModalityAdapter
from d2v.core.paths import PathText
from d2v.core.validators import one_of
from d2v.text.config import TextAdapterConfig
from d2v.text.corpus.blocks import Blocks, BreakMode, blocks_of
from d2v.text.corpus.samples import BlockSamples, InTurn, collate_blocks
from d2v.text.corpus.sources import TokenSet, holds_tokens, open_token_sets
from d2v.text.corpus.token_file import TokenFile
from d2v.text.tokenizing import BOS, EOS, Tokenizer, check_adapter, read_tokenizer
from d2v.text.tokenizing.matching import text_front
from d2v.text.tokenizing.reading import tokenizer_of_model

__all__ = ["TextDataConfig"]

_CHECKED = 50_000_000  # tokens of a split whose ids are compared with the vocabulary before training


@frozen(kw_only=True)
class TextDataConfig:
    """Text in blocks of tokens, without labels; the defaults are those of the published 2.0 models.

    A block is `<s>` and tokens of the text, in which `</s>` ends each line. Training shuffles the blocks; evaluation
    reads them in order. Blocks of unequal length are batched with others of similar length and padded with `<pad>`.

    Args:
        path: one of
            a folder of token files (`d2v data tokens`), or of data that the original toolkit binarised (`.bin`, `.idx`,
            `dict.txt`);
            a text file or a folder of them, of at most 64 MB (`.txt`, `.jsonl`, also with `.gz`): they are tokenised at
            each start;
            the name of a built-in set: `wordnet`;
            several of these joined by `:`: training uses one in each epoch, in turn.
        tokenizer: folder with a tokenizer, for text files; a trained model, `init` included, uses its own. None = that
            of the token files.
        vocabulary_size: number of ids of a tokenizer that is trained on text files if there is none; None = such text
            is refused.
        text_field: field of JSON lines that holds the text.
        block_size: tokens of a block, `<s>` included.
        break_mode: none = blocks of equal length, across lines and documents; complete = whole lines, as many as fit;
            complete_doc = whole lines of one document; eos = one line each.
        cut_long: whether a line longer than a block is cut into blocks (complete, complete_doc, eos); otherwise it is a
            long block of its own, as published, which the model may refuse.
        max_tokens: limit of blocks x longest block of a batch on one rank, in tokens, together with the limit of blocks
            (`train.batch_size`); None = only that one holds.
        batch_multiple: batches of that many blocks of unequal length or more have a multiple of it.
        num_workers: loader processes, at most one for each CPU core; 0 = load in the training process.

    Raises:
        ValueError: if a value is out of its range.

    >>> data = TextDataConfig(path="wordnet", vocabulary_size=300, block_size=16, num_workers=0)
    >>> next(iter(data.build("train", batch_size=2))).source.shape
    torch.Size([2, 16])
    """

    inherited: ClassVar[tuple[str, ...]] = ("text_field", "block_size", "break_mode", "cut_long")

    path: PathText = field(validator=min_len(1), metadata=may_change("data"))
    tokenizer: PathText | None = field(default=None, metadata=may_change("data"))
    vocabulary_size: int | None = field(default=None, validator=optional(ge(1)))
    text_field: str = field(default="text", validator=min_len(1))
    block_size: int = field(default=512, validator=ge(2))
    break_mode: BreakMode = field(default="none", validator=one_of(BreakMode))
    cut_long: bool = False
    max_tokens: int | None = field(default=None, validator=optional(ge(1)))
    batch_multiple: int = field(default=1, validator=ge(1))
    num_workers: int = field(default=2, validator=ge(0), metadata=may_change("free"))

    @max_tokens.validator
    def _check_limits(self, _: object, max_tokens: int | None) -> None:
        if max_tokens is not None and max_tokens < self.block_size:
            raise ValueError(f"max_tokens={max_tokens} must be at least block_size={self.block_size}")

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
        """Build the loader of a split.

        Args:
            split: name of the split; None = the training split.
            batch_size: limit of blocks in a batch of this rank.
            seed: seed of the run.
            rank: rank of this process.
            world_size: number of processes that share the split.
            training: True = endless and shuffled; False = one pass in order, or in the order of unequal lengths.
            labels: must be None: blocks have no labels.

        Raises:
            MissingExtraError: if tokenizers is not installed.
            DataError: if the data or the split does not exist or cannot be used, or labels are wanted.
        """
        if labels is not None:
            raise self._unlabelled()
        parts = self._parts(split)
        samples = BlockSamples(
            [tokens for tokens, _ in parts], [blocks for _, blocks in parts], self._sets[0].vocabulary_size
        )
        options = {"seed": seed, "rank": rank, "world_size": world_size}
        limit = batch_size if self.max_tokens is None else min(batch_size, self.max_tokens // self.block_size)
        plan: Plan
        if training:
            plans = [self._plan(blocks, batch_size, limit, training=True, **options) for _, blocks in parts]
            plan = plans[0] if len(plans) == 1 else InTurn(plans)
        elif len(parts) == 1:
            plan = self._plan(parts[0][1], batch_size, limit, training=False, **options)
        else:
            plan = FixedPlan(n=len(samples), batch_size=limit, shuffle=False, drop_last=False, **options)
        workers = min(self.num_workers, os.cpu_count() or 1)
        return Loader(samples, collate_blocks, plan, endless=training, num_workers=workers)

    def prepare(self, items: Iterable[Any]) -> Batch:
        """Prepare given texts, each as one sample: `<s>`, and the tokens of each line with `</s>`.

        Args:
            items: texts as strings.

        Raises:
            MissingExtraError: if tokenizers is not installed.
            DataError: naming the item, if one is not a text, contains lone surrogates or is longer than a block; if
                there are none, or no tokenizer is known.
        """
        tokenizer = self._known_tokenizer
        if tokenizer is None:
            raise DataError("no tokenizer is known: give its folder as data.tokenizer")
        found = []
        for index, item in enumerate(item_list(items)):
            if not isinstance(item, str):
                raise item_error(index, item, "a text must be a string")
            try:
                lines = tokenizer.encode_lines([line.strip() for line in item.strip().split("\n")])
            except ValueError as error:
                raise item_error(index, item, str(error)) from error
            ids = [BOS, *(id for line in lines for id in (*line.tolist(), EOS))]
            if len(ids) > self.block_size:
                raise item_error(index, item, f"it has {len(ids)} tokens, more than block_size={self.block_size}")
            found.append(torch.tensor(ids))
        batch = collate_blocks(found, torch.arange(len(found)))
        return Batch(source=batch.source, padding=batch.padding)

    def preparation(self) -> Mapping[str, Any]:
        """Nothing: what prepares text is the tokenizer, which is a file of the model."""
        return {}

    def files(self) -> Mapping[str, bytes]:
        """The files of the tokenizer, if it is known."""
        tokenizer = self._sets[0].tokenizer
        return {} if tokenizer is None else tokenizer.files()

    def with_files(self, files: Mapping[str, bytes]) -> "TextDataConfig":
        """Return the same data with the tokenizer of a model; without one in `files`, the data's own.

        Raises:
            DataError: if the files are broken.
        """
        tokenizer = tokenizer_of_model(files)
        if tokenizer is None:
            return self
        found = evolve(self)
        object.__setattr__(found, "_model_tokenizer", tokenizer)  # what the property would compute
        return found

    def contents(self) -> Contents:
        """Describe the data: blocks by split, and tokens.

        Raises:
            MissingExtraError: if tokenizers is not installed.
            DataError: if the data does not exist or cannot be used.
        """
        splits = {name: self._parts(name) for name in self._sets[0].splits}
        tokens = sum(tokens.num_tokens for parts in splits.values() for tokens, _ in parts)
        size = self._sets[0].vocabulary_size
        shown = f"{tokens / 1e6:.3g} M" if tokens >= 1e6 else str(tokens)
        facts = [f"{shown} tokens"] + ([] if size is None else [f"vocabulary of {size}"])
        counts = {name: sum(len(blocks) for _, blocks in parts) for name, parts in splits.items()}
        return Contents(path=self.path, splits=counts, facts=tuple(facts), unit="blocks")

    def splits(self) -> Splits:
        """The splits by their use, from their names.

        Raises:
            DataError: if the data does not exist or cannot be used.
        """
        return splits_by_use(self._sets[0].splits)

    def labels(self, wanted: type[Labels]) -> Labels:
        """Blocks have no labels; raises `DataError`."""
        del wanted
        raise self._unlabelled()

    def match(self, adapter: ModalityAdapter) -> None:
        """Check that an adapter takes these ids and blocks.

        Raises:
            DataError: if it does not take token ids, has another vocabulary, or fewer positions than a block; if an id
                of the files is outside its vocabulary.
        """
        front = text_front(adapter, path=self.path)
        if self._sets[0].tokenizer is not None:
            check_adapter(adapter, self._sets[0].tokenizer, path=self.path)
        known = front.tokens.num_embeddings
        for tokens, blocks in self._parts(None):
            if blocks.longest + 1 > front.max_length:
                raise DataError(
                    f"{tokens.stem} has a line of {blocks.longest} tokens, but the model has {front.max_length} "
                    "positions; set data.cut_long=true"
                )
            if (largest := tokens.largest(_CHECKED)) >= known:
                raise DataError(
                    f"{tokens.stem} has the id {largest}, which is not in the vocabulary of {known} ids of the model; "
                    "make it with the tokenizer of the model"
                )

    def matching(self, adapter: AdapterConfig) -> AdapterConfig:
        """Return the adapter's configuration with the vocabulary of a tokenizer that is trained on the text.

        Raises:
            DataError: if it does not take token ids, or blocks are longer than its positions.
        """
        if not isinstance(adapter, TextAdapterConfig):
            raise DataError(f"data.path={self.path!r} gives token ids, but the model has a {type(adapter).__name__}")
        if self.block_size > adapter.max_length:
            raise DataError(
                f"data.block_size={self.block_size} is more than the model's {adapter.max_length} positions "
                "(model.student.adapters.text.max_length)"
            )
        if self.vocabulary_size is None or holds_tokens(self.path):
            return adapter
        mask_id = None if adapter.mask_id is None else self.vocabulary_size - 1
        return evolve(adapter, vocabulary_size=self.vocabulary_size, mask_id=mask_id)

    def _plan(self, blocks: Blocks, batch_size: int, limit: int, *, training: bool, **options: Any) -> Plan:
        if self.break_mode == "none":
            return FixedPlan(n=len(blocks), batch_size=limit, shuffle=training, drop_last=training, **options)
        if self.max_tokens is not None and blocks.longest + 1 > self.max_tokens:
            raise DataError(
                f"data.path={self.path!r} has a block of {blocks.longest + 1} tokens, more than "
                f"data.max_tokens={self.max_tokens}; set data.cut_long=true"
            )
        return BudgetPlan(
            lengths=blocks.lengths() + 1,
            max_tokens=self.max_tokens,
            max_samples=batch_size,
            multiple=self.batch_multiple,
            shuffle=training,
            drop_last=training,
            **options,
        )

    def _parts(self, split: str | None) -> list[tuple[TokenFile, Blocks]]:
        """Token file and blocks of a split in each folder that has it."""
        name = self.splits().train if split is None else split
        having = [one for one in self._sets if name in one.splits] or self._sets[:1]
        return [self._opened(one, name) for one in having]

    def _opened(self, one: TokenSet, split: str) -> tuple[TokenFile, Blocks]:
        key = (one.path, split)
        if key not in self._cache:
            tokens = one.open(split)
            self._cache[key] = tokens, blocks_of(tokens, self.block_size - 1, self.break_mode, cut=self.cut_long)
        return self._cache[key]

    @cached_property
    def _cache(self) -> dict[tuple[str, str], tuple[TokenFile, Blocks]]:
        return {}

    @cached_property
    def _sets(self) -> list[TokenSet]:
        """The token files, opened (and text tokenised) once for each configuration."""
        _require_extra()
        return open_token_sets(
            self.path,
            tokenizer=self._model_tokenizer,
            named=self.tokenizer,
            vocabulary_size=self.vocabulary_size,
            text_field=self.text_field,
        )

    @cached_property
    def _model_tokenizer(self) -> Tokenizer | None:
        """The tokenizer of a trained model, see `with_files`."""
        return None

    @cached_property
    def _known_tokenizer(self) -> Tokenizer | None:
        """The tokenizer for given texts, without opening the data."""
        _require_extra()
        if self._model_tokenizer is None and self.tokenizer is not None:
            return read_tokenizer(self.tokenizer)
        return self._model_tokenizer

    def _unlabelled(self) -> DataError:
        return DataError(f"data.path={self.path!r}: blocks of tokens have no labels; give labelled texts")


def _require_extra() -> None:
    from d2v.text import modality

    modality.require_extra()
