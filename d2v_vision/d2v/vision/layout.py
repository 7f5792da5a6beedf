"""What the folders below `data.path` are: splits, classes, or neither.

A folder is a split if its name is one, in any case and spelling (`Train`, `valid`, `test_set`, `val2017`). Where names
leave it open what is meant, the error says what to rename: nothing is guessed.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping

from d2v.core.data import DataError, escaped
from d2v.vision.tree import Folder

SPLITS = ("train", "val", "test")
_WORDS = {
    **dict.fromkeys(["train", "training", "trn"], "train"),
    **dict.fromkeys(["val", "valid", "validation", "validate", "validating", "dev", "devel", "development"], "val"),
    **dict.fromkeys(["eval", "evaluation", "evaluate"], "val"),
    **dict.fromkeys(["test", "testing", "tests", "tst"], "test"),
}
_AROUND = r"(?:set|split|data|dataset|images?|imgs?|folder|part)"


def split_name(name: str) -> str | None:
    """The split that a name is another spelling of.

    >>> [split_name(name) for name in ("Training", "valid", "TEST_SET", "val2017", "trainer")]
    ['train', 'val', 'test', 'val', None]
    """
    word = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())
    word = re.sub(r"(?:19|20)\d\d$", "", word)
    bare = (word, re.sub(f"{_AROUND}$", "", word), re.sub(f"^{_AROUND}", "", word))
    return next((_WORDS[one] for one in bare if one in _WORDS), None)


def resembles(name: str) -> str | None:
    """The split that is a word in a name of several, as in `seg_train`; None where there is none or are several.

    >>> resembles("seg_train"), resembles("myTestImages"), resembles("contest"), resembles("train_test")
    ('train', 'test', None, None)
    """
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    found = {_WORDS[word.casefold()] for word in words if word.casefold() in _WORDS}
    return found.pop() if len(found) == 1 else None


def class_name(folder: str) -> str:
    """The class of a folder: its name in one Unicode form (NFC), in one line."""
    return escaped(unicodedata.normalize("NFC", folder))


def split_folders(path: str, root: Folder) -> dict[str, str]:
    """Names of the folders of splits by the split; {} where there are no splits.

    Args:
        path: what messages call the data set.
        root: its tree.

    Raises:
        DataError: if two folders are one split, a folder could be a split or a class, the splits lie deeper, or it is
            the folder of a run.
    """
    if root.is_run:
        raise DataError(f"data.path={path!r} is the folder of a run, which holds no data; give that of the images")
    children = root.children()
    filled = [name for name, one in children.items() if one.holds_images()]
    named: dict[str, list[str]] = {}
    for name in children:
        if (split := split_name(name)) is not None:
            named.setdefault(split, []).append(name)
    # An empty folder is no split beside one that holds images.
    found = {split: [name for name in names if name in filled] or names for split, names in named.items()}
    if any(name in filled for names in found.values() for name in names):
        found = {split: names for split, names in found.items() if names[0] in filled}
    _refuse_doubles(path, found)
    others = [name for name in filled if split_name(name) is None]
    if not found:
        if others and not root.images and not root.linked_images:
            _refuse_hidden_splits(path, {name: children[name] for name in others})
        return {}
    splits = {split: found[split][0] for split in SPLITS if split in found}
    if others:
        _refuse_unclear(path, splits, others, children)
    return splits


def _refuse_doubles(path: str, found: Mapping[str, list[str]]) -> None:
    for split, names in found.items():
        if len(names) > 1:
            raise DataError(
                f"data.path={path!r} has {_list(names)}, which are all the split {split!r}: rename or move all but one "
                "of them (a folder `extra`, say, is not used)"
            )


def _refuse_unclear(path: str, splits: Mapping[str, str], others: list[str], children: Mapping[str, Folder]) -> None:
    """Folders beside the splits are not used, where it is clear that they are neither classes nor splits."""
    alike = {name: split for name in others if (split := resembles(name)) is not None and split not in splits}
    if alike:
        raise DataError(f"data.path={path!r}: {_renamed(alike)}; else move the folder away: it is beside the splits")
    if "train" in splits and (len(splits) > 1 or _has_folders(children[splits["train"]])):
        return
    first = escaped(next(iter(splits.values())))
    raise DataError(
        f"data.path={path!r}: it is unclear whether {_list(splits.values())} beside {_list(others)} is a split or a "
        f"class. If it is a class, rename the folder ({first}_1, say); if it is a split, move the others "
        "below `train` or away"
    )


def _refuse_hidden_splits(path: str, others: Mapping[str, Folder]) -> None:
    alike = {name: split for name in others if (split := resembles(name)) is not None}
    if "train" in alike.values() and len(set(alike.values())) > 1:
        raise DataError(f"data.path={path!r}: {_renamed(alike)}")
    inside = {name: _splits_in(one) for name, one in others.items()}
    if len(others) == 1:
        ((name, one),) = others.items()
        place, below = f"{path.rstrip('/')}/{name}", one
        while not (len(_splits_in(below)) > 1 or "train" in _splits_in(below)):
            wrapped = _only(below)
            if wrapped is None:
                return
            place, below = f"{place}/{wrapped[0]}", wrapped[1]
        raise DataError(f"the splits of data.path={path!r} lie in {escaped(place)}; give data.path={escaped(place)}")
    if all(len(splits) > 1 for splits in inside.values()):
        name, splits = next(iter(inside.items()))
        example = next(iter(splits.values()))
        raise DataError(
            f"data.path={path!r} has the splits inside the classes ({escaped(name)}/{example}); put the classes inside "
            f"the splits ({example}/{escaped(name)})"
        )
    for name, splits in inside.items():
        if len(splits) > 1 and "train" in splits:
            place = escaped(f"{path.rstrip('/')}/{name}")
            raise DataError(f"data.path={path!r} is no folder of classes: {place} holds splits; give data.path={place}")


def _only(folder: Folder) -> tuple[str, Folder] | None:
    """The one folder with images in a folder that holds nothing else."""
    filled = [(name, one) for name, one in folder.children().items() if one.holds_images()]
    return filled[0] if len(filled) == 1 and not folder.images and not folder.linked_images else None


def _splits_in(folder: Folder) -> dict[str, str]:
    """Folders in a folder that are called like splits and hold images; none where another lies beside them."""
    filled = [name for name, one in folder.children().items() if one.holds_images()]
    found = {split: name for name in filled if (split := split_name(name)) is not None}
    return found if len(found) > 1 or (found and len(filled) == 1) else {}


def _has_folders(folder: Folder) -> bool:
    return any(one.holds_images() for one in folder.children().values())


def _renamed(alike: Mapping[str, str]) -> str:
    each = ", ".join(f"{escaped(name)} to {split}" for name, split in alike.items())
    return f"{_list(alike)} {'looks like a split' if len(alike) == 1 else 'look like splits'}: rename {each}"


def _list(names: Iterable[str]) -> str:
    shown = list(map(escaped, names))
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")
