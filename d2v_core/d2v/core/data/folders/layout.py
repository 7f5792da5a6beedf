"""Determine which folders below `data.path` are splits, classes, or neither.

A folder is a split if it is named like one, in any case and spelling (`Train`, `valid`, `test_set`, `val2017`). If the
names are ambiguous, the error says what to rename: nothing is guessed.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping

from d2v.core.data.broken import DataError
from d2v.core.data.config import Splits
from d2v.core.data.folders.medium import Medium
from d2v.core.data.folders.tree import Folder
from d2v.core.data.names import escaped

SPLITS = ("train", "val", "test")
_WORDS = {
    **dict.fromkeys(["train", "training", "trn"], "train"),
    **dict.fromkeys(["val", "valid", "validation", "validate", "validating", "dev", "devel", "development"], "val"),
    **dict.fromkeys(["eval", "evaluation", "evaluate"], "val"),
    **dict.fromkeys(["test", "testing", "tests", "tst"], "test"),
}
_AROUND = r"(?:set|split|data|dataset|images?|imgs?|folder|part)"


def split_name(name: str) -> str | None:
    """Return the split that a name denotes, in any spelling; None = no split.

    >>> [split_name(name) for name in ("Training", "valid", "TEST_SET", "val2017", "trainer")]
    ['train', 'val', 'test', 'val', None]
    """
    word = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())
    word = re.sub(r"(?:19|20)\d\d$", "", word)
    bare = (word, re.sub(f"{_AROUND}$", "", word), re.sub(f"^{_AROUND}", "", word))
    return next((_WORDS[one] for one in bare if one in _WORDS), None)


def resembles(name: str) -> str | None:
    """Return the split whose name is one of the words in a name, as in `seg_train`; None = no split, or several.

    >>> resembles("seg_train"), resembles("myTestImages"), resembles("contest"), resembles("train_test")
    ('train', 'test', None, None)
    """
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    found = {_WORDS[word.casefold()] for word in words if word.casefold() in _WORDS}
    return found.pop() if len(found) == 1 else None


def class_name(folder: str) -> str:
    """Return the class name of a folder: its name in Unicode form NFC, escaped to one line."""
    return escaped(unicodedata.normalize("NFC", folder))


def split_folders(path: str, root: Folder, medium: Medium) -> dict[str, str]:
    """Return the folder name of each split; {} = there are no splits.

    Args:
        path: name of the data set in messages.
        root: its folder tree.
        medium: what counts as a file.

    Raises:
        DataError: if two folders are the same split, a folder could be a split or a class, the splits are deeper in the
            tree, or the folder is a run.
    """
    if root.is_run:
        raise DataError(
            f"data.path={path!r} is the folder of a run, which contains no data; give the folder of the {medium.unit}"
        )
    children = root.children()
    filled = [name for name, one in children.items() if one.holds_files()]
    if medium.own_splits and _are_own_splits(filled):
        return {name: name for name in filled}
    named: dict[str, list[str]] = {}
    for name in children:
        if (split := split_name(name)) is not None:
            named.setdefault(split, []).append(name)
    # Next to a split with files, an empty folder is not a split.
    found = {split: [name for name in names if name in filled] or names for split, names in named.items()}
    if any(name in filled for names in found.values() for name in names):
        found = {split: names for split, names in found.items() if names[0] in filled}
    _refuse_doubles(path, found)
    others = [name for name in filled if split_name(name) is None]
    if not found:
        if others and not root.files and not root.linked_files:
            _refuse_hidden_splits(path, {name: children[name] for name in others})
        return {}
    splits = {split: found[split][0] for split in SPLITS if split in found}
    if others:
        _refuse_unclear(path, splits, others, children)
    return splits


def use_of(name: str) -> str | None:
    """Return what a split with a name of its own is for: train, val or test; None = it does not say.

    >>> [use_of(name) for name in ("train-clean-100", "dev_other", "test_clean", "lectures")]
    ['train', 'val', 'test', None]
    """
    return split_name(name) or resembles(name)


def splits_by_use(names: Iterable[str], train: str | None = None) -> Splits:
    """Return splits by their use, from their names. If there is only one of val and test, results are reported on it.

    Of several splits for one use, the one that is named exactly so is taken, otherwise the last one in sorted order, as
    in the published recipes (`dev_other`, `test_other`).

    Args:
        names: of the splits.
        train: split to train on; None = by its name.

    >>> splits_by_use(["train", "dev_clean", "dev_other", "test_other"])
    Splits(train='train', val='dev_other', test='test_other', pretrain=None, whole=None)
    """
    found: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (split_name(name) is not None, name)):
        if (use := use_of(name)) is not None and name != train:
            found[use] = name
    first, test = train or found.get("train", "train"), found.get("test")
    val = found.get("val")
    return Splits(train=first, val=val if test else None, test=test or val)


def _are_own_splits(names: list[str]) -> bool:
    uses = list(map(use_of, names))
    return None not in uses and "train" in uses and any(split_name(name) is None for name in names)


def _refuse_doubles(path: str, found: Mapping[str, list[str]]) -> None:
    for split, names in found.items():
        if len(names) > 1:
            raise DataError(
                f"data.path={path!r} has {_list(names)}, which are all the split {split!r}: rename or move all but one "
                "of them (for example to a folder `extra`, which is not used)"
            )


def _refuse_unclear(path: str, splits: Mapping[str, str], others: list[str], children: Mapping[str, Folder]) -> None:
    """Refuse folders next to the splits unless they are clearly neither classes nor splits; those are not used."""
    similar = {name: split for name in others if (split := resembles(name)) is not None and split not in splits}
    if similar:
        raise DataError(f"data.path={path!r}: {_renamed(similar)}; otherwise move the folder away from the splits")
    if "train" in splits and (len(splits) > 1 or _has_folders(children[splits["train"]])):
        return
    first = escaped(next(iter(splits.values())))
    raise DataError(
        f"data.path={path!r}: it is unclear whether {_list(splits.values())} next to {_list(others)} is a split or a "
        f"class. If it is a class, rename the folder (for example to {first}_1); if it is a split, move the others "
        "below `train` or away"
    )


def _refuse_hidden_splits(path: str, others: Mapping[str, Folder]) -> None:
    similar = {name: split for name in others if (split := resembles(name)) is not None}
    if "train" in similar.values() and len(set(similar.values())) > 1:
        raise DataError(f"data.path={path!r}: {_renamed(similar)}")
    inside = {name: _splits_in(one) for name, one in others.items()}
    if len(others) == 1:
        ((name, one),) = others.items()
        inner, below = f"{path.rstrip('/')}/{name}", one
        while not (len(_splits_in(below)) > 1 or "train" in _splits_in(below)):
            wrapped = _only(below)
            if wrapped is None:
                return
            inner, below = f"{inner}/{wrapped[0]}", wrapped[1]
        raise DataError(f"the splits of data.path={path!r} are in {escaped(inner)}; give data.path={escaped(inner)}")
    if all(len(splits) > 1 for splits in inside.values()):
        name, splits = next(iter(inside.items()))
        example = next(iter(splits.values()))
        raise DataError(
            f"data.path={path!r} has the splits inside the classes ({escaped(name)}/{example}); put the classes inside "
            f"the splits ({example}/{escaped(name)})"
        )
    for name, splits in inside.items():
        if len(splits) > 1 and "train" in splits:
            inner = escaped(f"{path.rstrip('/')}/{name}")
            raise DataError(
                f"data.path={path!r} is not a folder of classes: {inner} contains splits; give data.path={inner}"
            )


def _only(folder: Folder) -> tuple[str, Folder] | None:
    """Return the only subfolder with files, if the folder contains no other files."""
    filled = [(name, one) for name, one in folder.children().items() if one.holds_files()]
    return filled[0] if len(filled) == 1 and not folder.files and not folder.linked_files else None


def _splits_in(folder: Folder) -> dict[str, str]:
    """Return the subfolders with files that are named like splits; none if a single one is next to other folders."""
    filled = [name for name, one in folder.children().items() if one.holds_files()]
    found = {split: name for name in filled if (split := split_name(name)) is not None}
    return found if len(found) > 1 or (found and len(filled) == 1) else {}


def _has_folders(folder: Folder) -> bool:
    return any(one.holds_files() for one in folder.children().values())


def _renamed(similar: Mapping[str, str]) -> str:
    each = ", ".join(f"{escaped(name)} to {split}" for name, split in similar.items())
    return f"{_list(similar)} {'looks like a split' if len(similar) == 1 else 'look like splits'}: rename {each}"


def _list(names: Iterable[str]) -> str:
    shown = list(map(escaped, names))
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")
