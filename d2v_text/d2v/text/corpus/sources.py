"""Open the tokens that `data.path` names: folders of token files, text files, or a built-in set.

Text files and built-in sets are tokenised into a temporary folder, which is deleted when the data is no longer used.
"""

import os
import shlex
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from d2v.core.data import DataError, escaped
from d2v.core.suggestions import nearest
from d2v.text.corpus.builtin import BUILTIN, builtin_text
from d2v.text.corpus.encoding import encode
from d2v.text.corpus.lines import Bad, lines_of
from d2v.text.corpus.text_files import find_texts, total_size
from d2v.text.corpus.texts import TextFiles, Texts
from d2v.text.corpus.token_file import TokenFile, open_tokens, token_splits
from d2v.text.tokenizing import FIRST, Tokenizer, has_tokenizer, read_tokenizer, train_tokenizer
from d2v.text.tokenizing.reading import DICTIONARY, dictionary_symbols

LARGEST_TEXT = 1 << 26
"""Bytes of text files that are tokenised at the start of a command; larger ones need `d2v data tokens` first."""
_TRAINED_ON = 1 << 26


def holds_tokens(path: str) -> bool:
    """Whether a path is a folder of token files."""
    return Path(path).is_dir() and bool(token_splits(path))


@frozen(kw_only=True, eq=False)
class TokenSet:
    """The token files of one folder.

    Args:
        path: as the user gave it.
        folder: of the token files.
        splits: names of the splits, sorted.
        tokenizer: that made the tokens; None = unknown.
        vocabulary_size: number of ids; None = unknown.
        temporary: the folder, if it is temporary.
    """

    path: str
    folder: Path
    splits: tuple[str, ...]
    tokenizer: Tokenizer | None
    vocabulary_size: int | None
    temporary: "Temporary | None" = None

    def open(self, split: str) -> TokenFile:
        """Open a split.

        Raises:
            DataError: if it does not exist, or its files are broken.
        """
        if split not in self.splits:
            raise DataError(
                f"data.path={self.path!r} has no split {split!r}; it has {', '.join(self.splits)}"
                f"{nearest(split, self.splits)}"
            )
        found = open_tokens(self.folder, split)
        found.keeps = self.temporary
        return found


class Temporary:
    """A temporary folder, deleted when nothing uses this object any more."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="d2v-tokens-"))
        weakref.finalize(self, _remove, self.path, os.getpid())


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # not a loader process, which is a copy of it
        shutil.rmtree(folder, ignore_errors=True)


def open_token_sets(
    path: str, *, tokenizer: Tokenizer | None, named: str | None, vocabulary_size: int | None, text_field: str
) -> list[TokenSet]:
    """Open what a path names, or what several paths joined by `:` name.

    Args:
        path: see `TextDataConfig.path`.
        tokenizer: that of a trained model; None = there is none.
        named: folder of the tokenizer for text files, or for token files without one.
        vocabulary_size: size of the tokenizer that is trained on text files if there is none.
        text_field: field of JSON lines that holds the text.

    Raises:
        DataError: if something does not exist, cannot be used, or was made with another tokenizer.
    """
    own = read_tokenizer(named) if tokenizer is None and named is not None else tokenizer
    paths = [path] if path in BUILTIN or Path(path).exists() else path.split(":")
    found: list[TokenSet] = []
    for one in paths:
        if holds_tokens(one):
            found.append(_of_tokens(one, own, of_model=tokenizer is not None))
        elif one in BUILTIN or Path(one).exists():
            found.append(_of_text(one, own, vocabulary_size, text_field))
            own = found[-1].tokenizer  # several folders share one
        else:
            raise DataError(
                f"data.path={one!r} is neither a folder of token files or text files, nor a text file, nor a built-in "
                f"set ({', '.join(BUILTIN)}){nearest(one, BUILTIN)}"
            )
    _check_same(found)
    return found


def _of_tokens(path: str, given: Tokenizer | None, *, of_model: bool) -> TokenSet:
    folder = Path(path)
    own = read_tokenizer(folder) if has_tokenizer(folder) else None
    if own is not None and given is not None and own != given:
        whose = "that of the model" if of_model else "that of data.tokenizer"
        raise DataError(f"data.path={path!r} was made with another tokenizer than {whose}; make it again with that one")
    tokenizer = own or given
    size = None if tokenizer is None else tokenizer.vocabulary_size
    dictionary = folder / DICTIONARY
    if own is None and dictionary.is_file():
        try:
            symbols = len(dictionary_symbols(dictionary.read_bytes())) + FIRST + 1
        except ValueError as error:
            raise DataError(f"{escaped(path)}: {error}") from error
        if size not in (None, symbols):
            raise DataError(
                f"data.path={path!r}: {DICTIONARY} gives a vocabulary of {symbols} ids, but the tokenizer has {size}"
            )
        size = symbols
    splits = tuple(token_splits(folder))
    return TokenSet(path=path, folder=folder, splits=splits, tokenizer=tokenizer, vocabulary_size=size)


def _of_text(path: str, tokenizer: Tokenizer | None, vocabulary_size: int | None, text_field: str) -> TokenSet:
    texts = {"train": [str(builtin_text(path))]} if path in BUILTIN else find_texts([path])
    size = sum(map(total_size, texts.values()))
    command = f"d2v data tokens {shlex.quote(path)} TOKENS"
    if tokenizer is None and vocabulary_size is None:
        raise DataError(
            f"data.path={path!r} is text, and no tokenizer is known: give its folder as data.tokenizer, or make token "
            f"files: `{command} --tokenizer FOLDER`"
        )
    if size > LARGEST_TEXT:
        how = " --tokenizer FOLDER" if tokenizer is not None else f" --vocabulary {vocabulary_size}"
        raise DataError(
            f"data.path={path!r} has {size / 1e6:.0f} MB of text, more than is tokenised at each start; make token "
            f"files once: `{command}{how}`, then data.path=TOKENS"
        )
    if tokenizer is None:
        assert vocabulary_size is not None
        tokenizer = trained_on(TextFiles(texts, text_field), vocabulary_size)
    temporary = Temporary()
    folder = temporary.path
    encode(TextFiles(texts, text_field), folder, tokenizer)
    return TokenSet(
        path=path,
        folder=folder,
        splits=tuple(token_splits(folder)),
        tokenizer=tokenizer,
        vocabulary_size=tokenizer.vocabulary_size,
        temporary=temporary,
    )


def trained_on(source: Texts, vocabulary_size: int) -> Tokenizer:
    """Train a tokenizer on the first 64 MB of the training text; lines that are not text are left out.

    Raises:
        DataError: if the text cannot be read, or is too short for the size.
    """
    try:
        return train_tokenizer(_first_lines(source), vocabulary_size)
    except ValueError as error:
        raise DataError(f"{escaped(source.name)}: {error}") from error


def _first_lines(source: Texts) -> Iterator[str]:
    split = "train" if "train" in source.splits else source.splits[0]
    total = 0
    for task in source.tasks():
        for piece in task.pieces if task.split == split else ():
            yield from (line for line in lines_of(piece) if not isinstance(line, Bad))
            total += len(piece.data)
        if total >= _TRAINED_ON:
            return


def _check_same(sets: Sequence[TokenSet]) -> None:
    first = sets[0]
    for other in sets[1:]:
        if other.vocabulary_size != first.vocabulary_size or other.tokenizer != first.tokenizer:
            raise DataError(f"data.path: {first.path!r} and {other.path!r} were made with different tokenizers")
