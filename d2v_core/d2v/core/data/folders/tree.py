"""Scan a tree of folders, and collect the files of a medium below some of them, every real file once.

Scanning lists folders and opens no files, except those whose extension the medium does not know.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator

from attrs import define, field, frozen

from d2v.core.data.broken import DataError
from d2v.core.data.folders.medium import Medium, extension

HIDDEN = "hidden files and folders"
SYSTEM = "files and folders of operating systems and archives"
RUNS = "run folders"
LOOPS = "links to a folder that contains them"
DOUBLE = "links to files and folders that are already used"
BROKEN = "broken links"
SPECIAL = "pipes, sockets and devices"
UNREADABLE = "files and folders that cannot be read"
_OF_SYSTEMS = frozenset(
    ["__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "@eadir", "lost+found", "__pycache__"]
)


@define(eq=False)
class Folder:
    """A folder: names of its files of the medium, its subfolders, and its other contents by kind.

    Args:
        path: path where the folder was found first.
        real: path with links resolved, which identifies the folder.
    """

    path: str
    real: str
    files: list[str] = field(factory=list)
    linked_files: list[str] = field(factory=list)
    folders: dict[str, "Folder"] = field(factory=dict)
    linked: dict[str, "Folder"] = field(factory=dict)
    others: list[tuple[str, str]] = field(factory=list)
    is_run: bool = False

    def children(self) -> dict[str, "Folder"]:
        """Subfolders by name, including linked ones, without run folders."""
        return {name: one for name, one in sorted({**self.folders, **self.linked}.items()) if not one.is_run}

    def holds_files(self) -> bool:
        """Return whether the folder contains a file of the medium, at any depth."""
        return any(one.files or one.linked_files for one in self._below())

    def _below(self) -> Iterator["Folder"]:
        seen, waiting = {self.real}, [self]
        while waiting:
            one = waiting.pop()
            yield one
            new = [child for child in one.children().values() if child.real not in seen]
            seen.update(child.real for child in new)
            waiting += new


def scan(root: str, medium: Medium) -> Folder:
    """Return the tree below a folder. Links to folders are followed, except to a folder that contains the link.

    Raises:
        DataError: if the folder itself cannot be read.
    """
    first = Folder(path=root, real=os.path.realpath(root))
    known, waiting = {first.real: first}, [first]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder.path) as found:
                entries = list(found)
        except OSError as error:
            if folder is first:
                raise unreadable(error) from error
            folder.others.append((UNREADABLE, ""))
            continue
        names = {entry.name for entry in entries} if len(entries) < 1000 else set()
        if "config.yaml" in names and names & {"checkpoints", "model"}:
            folder.is_run = True
            continue
        plain, files = medium.as_written, folder.files
        for entry in entries:
            name = entry.name
            # Fast path: nearly all entries are such files, and there may be a million of them.
            if name[name.rfind(".") :] in plain and name[0] != "." and entry.is_file(follow_symlinks=False):
                files.append(name)
            else:
                _sort_in(folder, entry, known, waiting, medium)
    return first


def _sort_in(
    folder: Folder, entry: "os.DirEntry[str]", known: dict[str, Folder], waiting: list[Folder], medium: Medium
) -> None:
    name = entry.name
    if name[0] == ".":
        folder.others.append((HIDDEN, name))
        return
    try:
        is_folder, is_file = entry.is_dir(), entry.is_file()
        if not is_folder and not is_file:
            kind = BROKEN if entry.is_symlink() and not os.path.exists(entry.path) else SPECIAL  # noqa: PTH110 - speed
        elif name.lower() in _OF_SYSTEMS:
            kind = SYSTEM
        elif is_folder:
            kind = _enter(folder, entry, known, waiting)
        elif (end := extension(name)) in medium.known or medium.recognises(entry.path):
            (folder.linked_files if entry.is_symlink() else folder.files).append(name)
            return
        else:
            kind = f".{end} files" if 0 < len(end) <= 8 and end.isalnum() else "files of unknown type"
    except OSError:
        kind = BROKEN if entry.is_symlink() else UNREADABLE
    if kind:
        folder.others.append((kind, name))


def _enter(folder: Folder, entry: "os.DirEntry[str]", known: dict[str, Folder], waiting: list[Folder]) -> str:
    """Add a subfolder to the tree; return the kind of a folder that is not added, otherwise ""."""
    is_link = entry.is_symlink()
    real = os.path.realpath(entry.path) if is_link else os.path.join(folder.real, entry.name)  # noqa: PTH118 - speed
    if is_link and f"{folder.real}{os.sep}".startswith(f"{real.rstrip(os.sep)}{os.sep}"):
        return LOOPS
    child = known.get(real)
    if child is None:
        child = known[real] = Folder(path=entry.path, real=real)
        waiting.append(child)
    (folder.linked if is_link else folder.folders)[entry.name] = child
    return ""


@frozen(kw_only=True)
class Gathered:
    """Files of the medium by folder, in the order of their paths, and the files and folders that are not used.

    Args:
        files: paths by the name passed for a folder; they start with its prefix.
        unused: names by kind.
    """

    files: dict[str, list[str]]
    unused: dict[str, list[str]]


def gather(folders: Iterable[tuple[str, str, Folder, bool]]) -> Gathered:
    """Collect the files of the medium below folders, every real file once, independent of links to it.

    Real folders and files come first, then links in the order of their paths; a link to a file or folder that has been
    counted is not used. Two hard links to a file are two files.

    Args:
        folders: name, prefix of the paths ("" or with a trailing slash), the folder, and whether it is a link.
    """
    taken: dict[str, Folder] = {}
    files: dict[str, list[str]] = {}
    unused: dict[str, list[str]] = {}
    links: list[tuple[str, str, str]] = []  # path, name, prefix of the folder's path
    real: deque[tuple[str, str, Folder]] = deque()
    linked: list[tuple[str, str, Folder]] = []
    for name, prefix, folder, is_link in folders:
        files[name] = []
        (linked if is_link else real).append((name, prefix, folder))
    while real or linked:
        if not real:
            linked.sort(key=lambda one: one[1], reverse=True)
            real.append(linked.pop())
        name, prefix, folder = real.popleft()
        if folder.real in taken:
            unused.setdefault(DOUBLE, []).append(prefix.rstrip("/"))
            continue
        taken[folder.real] = folder
        files[name] += [prefix + file for file in folder.files]
        links += [(f"{prefix}{file}", name, os.path.join(folder.path, file)) for file in folder.linked_files]  # noqa: PTH118 - speed
        for kind, other in folder.others:
            unused.setdefault(kind, []).append(f"{prefix}{other}".rstrip("/"))
        unused_runs = [one for one, child in {**folder.folders, **folder.linked}.items() if child.is_run]
        if unused_runs:
            unused.setdefault(RUNS, []).extend(prefix + one for one in unused_runs)
        real += [(name, f"{prefix}{one}/", child) for one, child in folder.folders.items() if not child.is_run]
        linked += [(name, f"{prefix}{one}/", child) for one, child in folder.linked.items() if not child.is_run]
    _add_links(links, taken, files, unused)
    for paths in (*files.values(), *unused.values()):
        paths.sort()
    return Gathered(files=files, unused=unused)


def _add_links(
    links: list[tuple[str, str, str]],
    taken: dict[str, Folder],
    files: dict[str, list[str]],
    unused: dict[str, list[str]],
) -> None:
    parents: dict[str, str] = {}
    names: dict[str, set[str]] = {}
    seen: set[tuple[str, str]] = set()
    for path, name, link in sorted(links):
        parent, file = _target(link, parents)
        if parent in taken and parent not in names:
            names[parent] = set(taken[parent].files)
        if (parent, file) in seen or file in names.get(parent, ()):
            unused.setdefault(DOUBLE, []).append(path)
            continue
        seen.add((parent, file))
        files[name].append(path)


def _target(link: str, parents: dict[str, str]) -> tuple[str, str]:
    """Return the real folder and name of a link's target; each folder is resolved once."""
    try:
        target = os.path.join(os.path.dirname(link), os.readlink(link))  # noqa: PTH115, PTH118, PTH120
        above, name = os.path.split(target)
        if os.path.islink(target) or name in ("", ".", ".."):  # noqa: PTH114 - speed
            return os.path.split(os.path.realpath(link))
    except OSError:
        return os.path.split(link)
    if above not in parents:
        parents[above] = os.path.realpath(above)
    return parents[above], name


def unreadable(error: OSError) -> DataError:
    """Convert an OSError to the error of a data set."""
    return DataError(f"{error.filename} cannot be read: {error.strerror}; change its permissions or the path")
