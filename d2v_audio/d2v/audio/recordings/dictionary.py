"""Dictionaries of the field (`dict.ltr.txt`): a symbol and a count in each line. Four more symbols come first."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from d2v.audio.recordings.transcripts import BOUNDARY, Transcripts, read_lines
from d2v.core.data import DataError, escaped
from d2v.core.labels import Symbols

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
LIBRISPEECH = "librispeech"
_OVERWRITE = "#fairseq:overwrite"


def librispeech_dictionary() -> str:
    """The published dictionary of LibriSpeech: 28 letters, 32 symbols with the four that are not listed.

    >>> parse_dictionary(librispeech_dictionary(), "dict.ltr.txt").num_outputs
    32
    """
    return files("d2v.audio.recordings").joinpath("shipped/dict.ltr.txt").read_text(encoding="utf-8")


def dictionary_text(counts: Mapping[str, int]) -> str:
    """A dictionary of counted units, the most frequent first.

    >>> dictionary_text({"A": 2, "|": 3})
    '| 3\\nA 2\\n'
    """
    kept = sorted(((-count, unit) for unit, count in counts.items() if unit not in SPECIALS))
    return "".join(f"{unit} {-count}\n" for count, unit in kept)


def parse_dictionary(text: str, name: str) -> Symbols:
    """The symbols of a dictionary. The blank is `<s>`, unknown symbols become `<unk>`, words end at `|` if it has it.

    Args:
        text: lines of symbol, space and count; with the flag `#fairseq:overwrite` a symbol may be repeated, and the
            last line counts.
        name: of the file, in messages.

    Raises:
        DataError: naming the line, if it has no count, or repeats a symbol without the flag.
    """
    symbols = list(SPECIALS)
    places = {symbol: place for place, symbol in enumerate(symbols)}  # dictionaries of words have hundreds of thousands
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        rest = line.rstrip().removesuffix(_OVERWRITE).rstrip()
        symbol, _, count = rest.rpartition(" ")
        if not symbol or not count.lstrip("-").isdigit():
            raise DataError(f"{escaped(name)}, line {number}: expected a symbol, a space and a count")
        if symbol in places:
            if not line.rstrip().endswith(_OVERWRITE) or symbol in SPECIALS:
                raise DataError(f"{escaped(name)}, line {number}: {symbol!r} is there already; remove one of them")
            symbols[places[symbol]] = f"{symbol} (line {places[symbol] - len(SPECIALS) + 1})"
        places[symbol] = len(symbols)
        symbols.append(symbol)
    return toolkit_symbols(tuple(symbols))


def toolkit_symbols(symbols: tuple[str, ...]) -> Symbols:
    """Return the meaning of all symbols of a dictionary of the field: blank, specials, unknown, boundary of words.

    >>> toolkit_symbols((*SPECIALS, "|", "E")).boundary
    '|'
    """
    return Symbols(
        symbols,
        blank="<ctc_blank>" if "<ctc_blank>" in symbols else "<s>",
        specials=tuple(symbol for symbol in ("<pad>", "</s>") if symbol in symbols),
        unknown="<unk>" if "<unk>" in symbols else None,
        boundary=BOUNDARY if BOUNDARY in symbols else None,
    )


def find_dictionary(named: str | None, folder: str, label_file: str, transcripts: Transcripts) -> tuple[str, str]:
    """Return name and text of the dictionary of labels.

    Args:
        named: a file, or `librispeech`; None = the file in the folder, otherwise the units of the transcripts.
        folder: where `dict.LABEL_FILE.txt` may be.
        label_file: ending of the label files.
        transcripts: of the training split.

    Raises:
        DataError: if the named file cannot be read.
    """
    if named == LIBRISPEECH:
        return named, librispeech_dictionary()
    beside = Path(folder, f"dict.{label_file}.txt")
    if named is None and not beside.is_file():
        return transcripts.source, dictionary_text(transcripts.counts(range(len(transcripts.lines))))
    file = beside if named is None else Path(named)
    return str(file), "".join(f"{line}\n" for line in read_lines(file))
