"""What a command has found where `data.path` points, and what of it is not used: counts and names, nothing read yet."""

from collections.abc import Mapping

from attrs import field, frozen

from d2v.core.data.names import escaped

_SHOWN = 3  # names in one line, of each kind


@frozen(kw_only=True)
class Contents:
    """What a data set holds, as it is said before any work.

    Args:
        path: what the user gave.
        splits: samples by the name of the split, in the order train, val, test.
        classes: names of the classes of the training split, in one line each; () where there are none.
        unused: what lies there and is not used: names by kind (".txt files", "empty folders").
        held_out: text after the count of the split `test`, where it is held out by rule; "" = it is the data's own.
        notes: what else the user should know, in one line each.
        unit: what a sample is, in the plural.
        listed_by: the command that prints all unused names, or "".

    >>> found = Contents(path="photos", splits={"train": 6, "val": 2}, classes=("cat", "dog"), unit="images",
    ...     unused={".txt files": ("a.txt", "b.txt")}, listed_by="d2v data check-images photos")
    >>> found.line()
    'photos: 8 images (train 6, val 2), 2 classes (cat, dog); not used: .txt files 2 (a.txt, b.txt)'
    """

    path: str
    splits: Mapping[str, int]
    classes: tuple[str, ...] = ()
    unused: Mapping[str, tuple[str, ...]] = field(factory=dict)
    held_out: str = ""
    notes: tuple[str, ...] = ()
    unit: str = "samples"
    listed_by: str = ""

    def line(self) -> str:
        """One line: splits, classes and counts; what is not used by kind, with the first names; the notes."""
        total = sum(self.splits.values())
        parts = ", ".join(f"{name} {count}" for name, count in self.splits.items())
        text = f"{escaped(self.path)}: {total} {self.unit if total != 1 else self.unit.removesuffix('s')}"
        parts += f" {self.held_out}" if self.held_out else ""
        text += f" ({parts})" if len(self.splits) > 1 or "train" not in self.splits else ""
        if self.classes:
            text += f", {len(self.classes)} {'class' if len(self.classes) == 1 else 'classes'} ({_few(self.classes)})"
        else:
            text += ", no classes"
        if self.unused:
            text += "; not used: "
            named = {kind: tuple(map(escaped, names[: _SHOWN + 1])) for kind, names in self.unused.items()}
            text += ", ".join(f"{kind} {len(self.unused[kind])} ({_few(names)})" for kind, names in named.items())
            if self.listed_by and any(len(names) > _SHOWN for names in self.unused.values()):
                text += f"; all names: `{escaped(self.listed_by)}`"
        return "; ".join([text, *self.notes])

    def listing(self) -> str:
        """Every name that is not used, below its kind; empty if all is used."""
        lines = []
        for kind, names in self.unused.items():
            lines += [f"not used, {kind}: {len(names)}", *(f"  {escaped(name)}" for name in names)]
        return "\n".join(lines)


def _few(names: tuple[str, ...]) -> str:
    return ", ".join([*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])])
