"""Transcripts of recordings as units: letters of words, or symbols separated by spaces."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath

from attrs import frozen

from d2v.core.data import DataError, escaped

LETTERS = "ltr"
WORDS = "wrd"
BOUNDARY = "|"
TRANSCRIPT_FILE = ".trans.txt"


@frozen(kw_only=True)
class Transcripts:
    """Transcripts of the recordings of a split.

    Args:
        lines: a line for each recording; None = there is none.
        spelled: whether a line has units separated by spaces; False = it has words.
        letters: whether words are spelled with letters, otherwise each word is a unit.
        source: file or folder that they are from, in messages.

    >>> Transcripts(lines=["ONE TWO"], spelled=False, letters=True, source="a.csv").units(0)
    ['O', 'N', 'E', '|', 'T', 'W', 'O', '|']
    """

    lines: Sequence[str | None]
    spelled: bool
    letters: bool
    source: str

    def units(self, id: int) -> list[str]:
        """The units of a recording; none if it has no transcript."""
        line = self.lines[id] or ""
        return letters_of(line) if self.letters and not self.spelled else line.split()

    def distinct(self, ids: Iterable[int]) -> set[str]:
        """The units that occur in some recordings; faster than `counts`."""
        lines = (self.lines[id] or "" for id in ids)
        if not self.letters or self.spelled:
            return {unit for line in lines for unit in line.split()}
        found = set().union(*lines)
        letters = {letter for letter in found if not letter.isspace()}
        return letters | ({BOUNDARY} if letters else set())

    def counts(self, ids: Iterable[int]) -> Counter[str]:
        """How often each unit occurs in some recordings."""
        found: Counter[str] = Counter()
        if not self.letters or self.spelled:
            for id in ids:
                found.update(self.units(id))
            return found
        words = 0
        for id in ids:  # without splitting words into letters: there may be a million lines
            line = self.lines[id] or ""
            found.update(line)
            words += len(line.split())
        counts = Counter({letter: count for letter, count in found.items() if not letter.isspace()})
        counts[BOUNDARY] += words
        return +counts

    @classmethod
    def joined(cls, parts: "Sequence[Transcripts]") -> "Transcripts":
        """The transcripts of several splits in turn."""
        if len(parts) == 1:
            return parts[0]
        lines = [" ".join(part.units(id)) for part in parts for id in range(len(part.lines))]
        return cls(lines=lines, spelled=True, letters=parts[0].letters, source=parts[0].source)


def letters_of(text: str) -> list[str]:
    """The letters of a text, with `|` after each word, as in the field's `.ltr` files.

    >>> " ".join(letters_of("HELLO WORLD"))
    'H E L L O | W O R L D |'
    """
    return [letter for word in text.split() for letter in (*word, BOUNDARY)]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file.

    Raises:
        DataError: if it cannot be read or is not UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise DataError(f"{escaped(str(path))} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{escaped(str(path))} is not UTF-8 text; save it as UTF-8") from error
    return lines[:-1] if lines[-1] == "" else lines


def read_librispeech(root: str, files: Iterable[str]) -> dict[str, str]:
    """Words by path without extension, from LibriSpeech's transcript files: lines of name, space and text.

    Args:
        root: folder that the paths are relative to.
        files: transcript files; each describes recordings in its own folder.

    Raises:
        DataError: if a file cannot be read.
    """
    found: dict[str, str] = {}
    for file in files:
        folder = PurePath(file).parent
        for line in read_lines(Path(root, file)):
            name, _, text = line.strip().partition(" ")
            if name:
                found[str(folder / name)] = text.strip()
    return found


def words_of_tree(words: Mapping[str, str], paths: Iterable[str]) -> list[str | None]:
    """The transcript of each recording of a tree; LibriSpeech's names end at the first dot."""
    return [words.get(str(PurePath(path).with_name(PurePath(path).name.partition(".")[0]))) for path in paths]


def read_two_columns(path: Path) -> dict[str, str]:
    """Words by name, from a file of names and texts separated by a tab, or by a comma with quotes as in CSV.

    Args:
        path: of the file; a `.tsv` or `.txt` file has tabs if any line has one.

    Raises:
        DataError: naming the line, if a name is missing, repeated, or without text.
    """
    lines = read_lines(path)
    tab = any("\t" in line for line in lines)
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = line.split("\t", 1) if tab else next(csv.reader([line]))
        if len(row) < 2 or not row[0].strip():
            raise DataError(f"{escaped(str(path))}, line {number}: expected a name, a tab or comma, and a text")
        name = row[0].strip()
        if name in found:
            raise DataError(f"{escaped(str(path))}, line {number}: {escaped(name)} is there twice")
        found[name] = (row[1] if tab else ",".join(row[1:])).strip()
    return found


def words_of_names(words: Mapping[str, str], paths: Iterable[str]) -> list[str | None]:
    """The transcript of each recording, named by its path, its file name, or its file name without extension."""
    return [
        next((words[key] for key in (path, PurePath(path).name, PurePath(path).stem) if key in words), None)
        for path in paths
    ]
