"""Files of a folder: the files to use, their splits and classes, and the files that are left out."""

from d2v.core.data.folders.file_set import FileSet, SplitFiles
from d2v.core.data.folders.layout import class_name, split_folders
from d2v.core.data.folders.medium import Medium
from d2v.core.data.folders.tree import RUNS, Folder, gather, scan
from d2v.core.data.names import escaped


def gathered_files(path: str, medium: Medium, *, labelled: bool = True) -> SplitFiles:
    """Return all files of the medium below a folder as one split: split folders are not detected.

    Subfolders with files are the classes, in sorted order. Files next to them, in the folder itself, are not used. If
    there are more of them than files in the subfolders, or only one subfolder, there are no classes and all files are
    used.

    Args:
        path: the folder.
        medium: what counts as a file.
        labelled: False = subfolders are not classes, and all files are used.

    Raises:
        DataError: if the folder cannot be read or contains no files of the medium.
    """
    found = gather([("train", "", scan(path, medium), False)])
    paths = found.files["train"]
    if not paths:
        raise FileSet(medium=medium, path=path, root="", parts={}, has_splits=False, unused=found.unused).empty()
    return _split_files(paths, "", found.unused, medium) if labelled else SplitFiles(paths=paths)


def read_folder(path: str, medium: Medium) -> FileSet:
    """Return the files of a folder by split.

    Raises:
        DataError: if the folder cannot be read, or its subfolders are ambiguous (see `split_folders`).
    """
    root = scan(path, medium)
    folders = split_folders(path, root, medium)
    children = root.children()
    starts = [(split, f"{name}/", children[name], name in root.linked) for split, name in folders.items()]
    found = gather(starts or [("train", "", root, False)])
    unused = found.unused
    if folders:
        _add_beside(root, set(folders.values()), unused, medium)
    parts, notes = {}, []
    for split, prefix, folder, _ in starts or [("train", "", root, False)]:
        paths = found.files[split]
        if folders and not paths and any(found.files.values()):
            continue
        parts[split] = _split_files(paths, prefix, unused, medium)
        _add_empty(folder, prefix, paths, unused, medium)
        notes += _wrapped(path, prefix, folder, parts[split])
    return FileSet(
        medium=medium,
        path=path,
        root=path,
        parts=parts,
        has_splits=bool(folders),
        unused=unused,
        notes=tuple(notes),
    )


def _split_files(paths: list[str], prefix: str, unused: dict[str, list[str]], medium: Medium) -> SplitFiles:
    """Return files with their classes, by the rule of `gathered_files`; add files next to the classes to `unused`."""
    firsts = _first_folders(paths, prefix)
    folders = set(firsts) - {""}
    num_loose = firsts.count("")
    if num_loose and (len(folders) < 2 or 2 * num_loose > len(paths)):
        return SplitFiles(paths=paths)
    if num_loose:
        unused.setdefault(f"{medium.unit} next to the class folders", []).extend(
            path for path, first in zip(paths, firsts, strict=True) if not first
        )
        paths = [path for path, first in zip(paths, firsts, strict=True) if first]
        firsts = [first for first in firsts if first]
    named = {folder: class_name(folder) for folder in folders}
    return SplitFiles.of(paths, [named[first] for first in firsts]) if folders else SplitFiles(paths=paths)


def _first_folders(paths: list[str], prefix: str) -> list[str]:
    """The first folder after the prefix of each path, "" = none."""
    start = len(prefix)
    return [path[start : max(path.find("/", start), start)] for path in paths]


def _add_beside(root: Folder, taken: set[str], unused: dict[str, list[str]], medium: Medium) -> None:
    """Add the contents of the folder itself, next to the splits, to `unused`."""
    others = [name for name, one in root.children().items() if name not in taken and one.holds_files()]
    beside = unused.setdefault(f"{medium.unit} and folders next to the splits", [])
    beside += [f"{name}/" for name in others] + sorted(root.files + root.linked_files)
    unused.setdefault(_empty(medium), []).extend(
        name for name, one in root.children().items() if name not in taken and not one.holds_files()
    )
    unused.setdefault(RUNS, []).extend(name for name, one in {**root.folders, **root.linked}.items() if one.is_run)
    for kind, name in root.others:
        unused.setdefault(kind, []).append(name)


def _add_empty(folder: Folder, prefix: str, paths: list[str], unused: dict[str, list[str]], medium: Medium) -> None:
    """Add folders at the level of the classes that contain no files of the medium to `unused`."""
    filled = set(_first_folders(paths, prefix))
    named = {name for names in unused.values() for name in names}
    empty = [f"{prefix}{name}" for name in folder.children() if name not in filled]
    unused.setdefault(_empty(medium), []).extend(name for name in empty if name not in named)


def _wrapped(path: str, prefix: str, folder: Folder, files: SplitFiles) -> list[str]:
    """Return a note if the only class contains only folders: these may be the classes."""
    if len(files.classes) != 1 or folder.files or folder.linked_files:
        return []
    ((name, one),) = [(name, one) for name, one in folder.children().items() if one.holds_files()][:1]
    inside = [below for below in one.children().values() if below.holds_files()]
    if len(inside) < 2 or one.files or one.linked_files:
        return []
    if prefix:
        where, change = f" of {escaped(prefix)}", f"move them up into {escaped(prefix)}"
    else:
        where, change = "", f"give data.path={escaped(path.rstrip('/'))}/{escaped(name)}"
    return [f"the only class{where} is {escaped(name)}, which contains folders: if they are the classes, {change}"]


def _empty(medium: Medium) -> str:
    return f"folders without {medium.unit}"
