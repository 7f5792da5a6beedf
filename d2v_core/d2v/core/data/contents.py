"""Summary of the data at `data.path`: counts and names of used and unused files, before any sample is read."""

from collections.abc import Mapping

from attrs import field, frozen

from d2v.core.data.names import escaped

_SHOWN = 3  # names of each kind in the one-line summary


@frozen(kw_only=True)
class Contents:
    """Contents of a data set, as commands print them before any work.

    Args:
        path: path as the user gave it.
        splits: number of samples by split, in the order train, val, test.
        classes: names of the classes of the training split, one line each; () = no classes.
        facts: what else is known of the samples ("2.3 h", "transcripts"); with any, the line does not say that there
            are no classes.
        unused: names of unused files and folders by kind (".txt files", "empty folders").
        held_out: text after the count of the split `test` if it is held out by rule; "" = the data has a test split.
        notes: further notes to the user, one line each.
        unit: word for the samples, in the plural.
        listed_by: command that prints all unused names, or "".

    >>> found = Contents(path="photos", splits={"train": 6, "val": 2}, classes=("cat", "dog"), unit="images",
    ...     unused={".txt files": ("a.txt", "b.txt")}, listed_by="d2v data check-images photos")
    >>> found.line()
    'photos: 8 images (train 6, val 2), 2 classes (cat, dog); not used: .txt files 2 (a.txt, b.txt)'
    """

    path: str
    splits: Mapping[str, int]
    classes: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    unused: Mapping[str, tuple[str, ...]] = field(factory=dict)
    held_out: str = ""
    notes: tuple[str, ...] = ()
    unit: str = "samples"
    listed_by: str = ""

    def line(self) -> str:
        """Summary in one line: splits, classes and counts; unused files by kind, with the first names; notes."""
        total = sum(self.splits.values())
        parts = ", ".join(f"{name} {count}" for name, count in self.splits.items())
        text = f"{escaped(self.path)}: {total} {self.unit if total != 1 else self.unit.removesuffix('s')}"
        parts += f" {self.held_out}" if self.held_out else ""
        text += f" ({parts})" if len(self.splits) > 1 or "train" not in self.splits else ""
        text += "".join(f", {fact}" for fact in self.facts)
        if self.classes:
            text += f", {len(self.classes)} {'class' if len(self.classes) == 1 else 'classes'} ({_few(self.classes)})"
        elif not self.facts:
            text += ", no classes"
        if self.unused:
            text += "; not used: "
            named = {kind: tuple(map(escaped, names[: _SHOWN + 1])) for kind, names in self.unused.items()}
            text += ", ".join(f"{kind} {len(self.unused[kind])} ({_few(names)})" for kind, names in named.items())
            if self.listed_by and any(len(names) > _SHOWN for names in self.unused.values()):
                text += f"; all names: `{escaped(self.listed_by)}`"
        return "; ".join([text, *self.notes])

    def listing(self) -> str:
        """All unused names, grouped by kind; empty if everything is used."""
        lines = []
        for kind, names in self.unused.items():
            lines += [f"not used, {kind}: {len(names)}", *(f"  {escaped(name)}" for name in names)]
        return "\n".join(lines)


def _few(names: tuple[str, ...]) -> str:
    return ", ".join([*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])])
