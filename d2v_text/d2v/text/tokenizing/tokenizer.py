"""The tokenizer of text models: byte-level byte-pair encoding with the special tokens of RoBERTa.

Radford et al. 2019, "Language models are unsupervised multitask learners", 2.2; Liu et al. 2019, arXiv:1907.11692.
`tokenizers` does the merging. It is imported at first use, so this module can be imported without the extra.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from d2v.text.tokenizing.special import BOS, EOS, FIRST, MASK, NAMES, PADDING, UNKNOWN

if TYPE_CHECKING:
    import tokenizers

Ids = NDArray[np.int64]
_SHOWN = 3  # pieces that an error names
_REMEMBERED = 1 << 17  # words whose pieces are kept; the default is 10,000, fewer than large texts have


class Tokenizer:
    """Converts text to token ids and back. `train_tokenizer` and `read_tokenizer` make one.

    Ids are those of the model: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, then pieces of text, and `<mask>` last. Every
    text can be encoded, and decoding gives it back, unless the dictionary lacks a piece, which then is `<unk>`. Special
    tokens are never read from text: the text "<s>" is three characters.

    Args:
        pieces: own id of each piece, in the letters that stand for bytes; all 256 bytes are pieces.
        merges: pairs of pieces in the order in which they are merged.
        ids: Long `n`, id in the model by own id, 3 = the model's dictionary lacks it.
        vocabulary_size: number of ids of the model, special tokens included.
        files: the files that the tokenizer is stored in: content by name.

    Raises:
        ValueError: if pieces and merges do not belong together.

    >>> from d2v.text.tokenizing import train_tokenizer
    >>> tokenizer = train_tokenizer(["low lower lowest"] * 9, vocabulary_size=266)
    >>> ids = tokenizer.encode("lower")
    >>> len(ids), tokenizer.decode(ids), tokenizer.mask_id
    (3, 'lower', 265)
    """

    def __init__(
        self,
        pieces: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        *,
        ids: Ids,
        vocabulary_size: int,
        files: Mapping[str, bytes],
    ) -> None:
        _check_pieces(pieces, merges)
        self.vocabulary_size = vocabulary_size
        self._pieces, self._merges, self._files = dict(pieces), list(merges), dict(files)
        self._ids = np.asarray(ids, dtype=np.int64)

    bos_id, padding_id, eos_id, unknown_id = BOS, PADDING, EOS, UNKNOWN

    @property
    def mask_id(self) -> int:
        """Id of `<mask>`, the last one."""
        return self.vocabulary_size - 1

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens.

        Raises:
            ValueError: if the text contains a lone surrogate, which no encoding of Unicode allows.
        """
        found: list[int] = self.encode_lines([text])[0].tolist()
        return found

    def encode_lines(self, lines: Sequence[str]) -> list[Ids]:
        """Return the ids of each of several texts, Long `n` each; faster than one call for each.

        Raises:
            ValueError: as `encode`.
        """
        return [self._ids[one] for one in self._encoded(lines)]

    def encode_file_lines(self, lines: Sequence[str]) -> tuple[Ids, NDArray[np.int32]]:
        """Return the ids of texts as token files have them: those of all texts in a row, `</s>` after each.

        Returns:
            Ids, Long `n`, and the number of tokens of each text, Int, `</s>` included.

        Raises:
            ValueError: as `encode`.
        """
        own = self._encoded(lines)
        sizes = np.fromiter((len(one) + 1 for one in own), np.int32, len(own))
        ends = sizes.cumsum(dtype=np.int64) - 1
        ids = np.full(int(sizes.sum()), EOS, np.int64)
        is_text = np.ones(len(ids), np.bool_)
        is_text[ends] = False
        ids[is_text] = self._ids[np.fromiter(chain.from_iterable(own), np.int64, len(ids) - len(own))]
        return ids, sizes

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids: `<unk>` and `<mask>` by their names, other special tokens left out.

        Raises:
            ValueError: if an id is not in the vocabulary.
        """
        parts: list[str] = []
        content = bytearray()
        for id in ids:
            if not 0 <= id < self.vocabulary_size:
                raise ValueError(f"id {id} is not in the vocabulary of {self.vocabulary_size} ids")
            piece = self._texts.get(int(id))
            if piece is not None:
                content += piece
                continue
            parts.append(content.decode(errors="replace"))
            content.clear()
            parts.append(MASK if id == self.mask_id else "" if id in (BOS, PADDING, EOS) else NAMES[UNKNOWN])
        return "".join([*parts, content.decode(errors="replace")])

    def files(self) -> dict[str, bytes]:
        """The files of this tokenizer by name; `tokenizer_of` makes the tokenizer again."""
        return dict(self._files)

    def __eq__(self, other: object) -> bool:
        """Whether two tokenizers give the same ids for every text."""
        if not isinstance(other, Tokenizer):
            return NotImplemented
        size = self.vocabulary_size == other.vocabulary_size
        return size and self._texts == other._texts and self._merges == other._merges

    def __hash__(self) -> int:
        return hash((self.vocabulary_size, len(self._merges)))

    def __reduce__(self) -> tuple[Any, ...]:
        from d2v.text.tokenizing.reading import tokenizer_of

        return tokenizer_of, (self._files,)

    def _encoded(self, lines: Sequence[str]) -> list[list[int]]:
        """Own ids of each text."""
        try:
            return [one.ids for one in self._encoder.encode_batch_fast(list(lines), add_special_tokens=False)]
        except (UnicodeEncodeError, TypeError) as error:
            raise _surrogate(lines) or error from error

    @cached_property
    def _encoder(self) -> "tokenizers.Tokenizer":
        from tokenizers import Tokenizer, models

        # Threads of its own would hang or warn in loader processes, which are forks; files are encoded in processes.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        encoder = Tokenizer(models.BPE(vocab=self._pieces, merges=self._merges, cache_capacity=_REMEMBERED))
        encoder.pre_tokenizer = byte_level()
        return encoder

    @cached_property
    def _texts(self) -> dict[int, bytes]:
        """Bytes of each piece by its id in the model."""
        by_letter = {letter: byte for byte, letter in enumerate(byte_letters())}
        found = {}
        for piece, own in self._pieces.items():
            id = int(self._ids[own])
            if id >= FIRST and all(letter in by_letter for letter in piece):
                found[id] = bytes(by_letter[letter] for letter in piece)
        return found


def byte_level() -> Any:
    """The split of texts into words and numbers before merging, as for GPT-2."""
    from d2v.text import modality

    modality.require_extra()
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def byte_letters() -> list[str]:
    """The letter that stands for each byte in the files of a tokenizer.

    Printable bytes stand for themselves, the others for the letters from U+0100 on.

    >>> byte_letters()[ord("a")], byte_letters()[ord(" ")]
    ('a', 'Ġ')
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _check_pieces(pieces: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> None:
    missing = [letter for letter in byte_letters() if letter not in pieces]
    if missing:
        raise ValueError(f"{len(missing)} of the 256 bytes are no pieces, such as {missing[0]!r}")
    made = {left + right for left, right in merges}
    lacking = [piece for pair in merges for piece in (*pair, "".join(pair)) if piece not in pieces]
    if lacking:
        raise ValueError(f"merges name pieces that the vocabulary lacks, such as {_few(lacking)}")
    # Pieces that no merge makes would never be used: the merges are cut off, or of another vocabulary.
    special = {*NAMES, MASK, "<|endoftext|>"}
    unmade = [one for one in pieces if len(one) > 1 and one not in made and one not in special]
    unmade = [piece for piece in unmade if not piece.startswith("madeupword")]
    if unmade:
        raise ValueError(f"no merge makes {len(unmade)} pieces of the vocabulary, such as {_few(unmade)}")


def _few(pieces: Sequence[str]) -> str:
    return ", ".join(map(repr, list(dict.fromkeys(pieces))[:_SHOWN]))


def _surrogate(lines: Sequence[str]) -> ValueError | None:
    for line in lines:
        for place, letter in enumerate(line):
            if "\ud800" <= letter <= "\udfff":
                return ValueError(f"character {place} of a text is the lone surrogate U+{ord(letter):04X}; remove it")
    return None
