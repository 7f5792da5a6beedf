"""Make an n-gram language model and a lexicon from text: `python benchmarks/arpa.py corpus.txt --out lm.arpa`.

Each line is a sentence of words between spaces. The model is interpolated by the rule of Witten and Bell (1991, method
C): with c the count of a context, t the number of different words after it and n(w) the count of w after it,

    p(w | context) = (n(w) + t p(w | shorter context)) / (c + t)

The shortest context is empty; below it, all words and the unknown word are equally likely. In the form of an ARPA file,
t / (c + t) is the back-off weight. Use KenLM's own tools for large texts: this script keeps all n-grams in memory.
"""

import argparse
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
Gram = tuple[str, ...]


class Ngrams:
    """Interpolated probabilities of n-grams.

    Args:
        sentences: lists of words.
        order: longest n-gram, at least 1.

    >>> model = Ngrams([["A", "B"], ["A"]], order=2)
    >>> round(model.probability(("A",), "B"), 4)
    0.3594
    """

    def __init__(self, sentences: Iterable[list[str]], order: int) -> None:
        self.order = order
        self.counts: defaultdict[Gram, Counter[str]] = defaultdict(Counter)
        """Counts of words by context."""
        for sentence in sentences:
            words = [START, *sentence, END]
            for place in range(1, len(words)):
                for length in range(min(order, place + 1)):
                    self.counts[tuple(words[place - length : place])][words[place]] += 1
        if not self.counts:
            raise ValueError("the text has no sentences")
        self.words = sorted(self.counts[()])
        self._sizes = {context: after.total() + len(after) for context, after in self.counts.items()}
        self._known: dict[tuple[Gram, str], float] = {}

    def probability(self, context: Gram, word: str) -> float:
        """p(word | context)."""
        key = context, word
        if key not in self._known:
            shorter = self.probability(context[1:], word) if context else 1 / (len(self.words) + 1)
            weight = self.back_off(context)
            seen = self.counts[context][word] / self._sizes[context] if context in self._sizes else 0.0
            self._known[key] = seen + (1.0 if weight is None else weight) * shorter
        return self._known[key]

    def back_off(self, context: Gram) -> float | None:
        """Weight of the shorter context; None if nothing follows this one."""
        return len(self.counts[context]) / self._sizes[context] if context in self._sizes else None

    def arpa(self) -> str:
        """The text of an ARPA file, with log10 probabilities."""
        grams: list[list[Gram]] = [[(START,), (UNKNOWN,), *((word,) for word in self.words)]]
        for length in range(1, self.order):
            contexts = sorted(context for context in self.counts if len(context) == length)
            grams.append([(*context, word) for context in contexts for word in sorted(self.counts[context])])
        lines = ["\\data\\", *(f"ngram {number}={len(rows)}" for number, rows in enumerate(grams, 1)), ""]
        for number, rows in enumerate(grams, 1):
            lines += [f"\\{number}-grams:", *(self._line(gram) for gram in rows), ""]
        return "\n".join([*lines, "\\end\\", ""])

    def _line(self, gram: Gram) -> str:
        *context, word = gram
        found = -99.0 if gram == (START,) else math.log10(self.probability(tuple(context), word))
        weight = self.back_off(gram) if len(gram) < self.order else None
        return f"{found:.6f}\t{' '.join(gram)}" + ("" if weight is None else f"\t{math.log10(weight):.6f}")


def sentences(paths: Iterable[Path]) -> Iterator[list[str]]:
    """The lines of text files that are not empty, as words."""
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            if words := line.split():
                yield words


def lexicon(words: Iterable[str], boundary: str = "|") -> str:
    """The lexicon of words spelled by their letters.

    >>> lexicon(["CAT"])
    'CAT C A T |\\n'
    """
    return "".join(f"{word} {' '.join(word)} {boundary}\n" for word in words)


def main() -> None:
    """Read the arguments and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="+", type=Path, help="text files (.wrd label files too)")
    parser.add_argument("--order", type=int, default=3, help="longest n-gram (default: 3)")
    parser.add_argument("--out", type=Path, required=True, help="ARPA file to write")
    parser.add_argument("--lexicon", type=Path, help="lexicon to write, of all words spelled by their letters")
    arguments = parser.parse_args()
    if arguments.order < 1:
        parser.error(f"--order={arguments.order} must be at least 1")
    model = Ngrams(sentences(arguments.text), arguments.order)
    arguments.out.write_text(model.arpa(), encoding="utf-8")
    if arguments.lexicon is not None:
        arguments.lexicon.write_text(lexicon(word for word in model.words if word != END), encoding="utf-8")
    print(f"{len(model.words) - 1} words, n-grams up to {model.order} in {arguments.out}")


if __name__ == "__main__":
    main()
