"""Image files of a folder: the files to use, their splits and classes, and the files that are left out."""

from pathlib import Path

from d2v.core.data import escaped
from d2v.vision.files import FileSet, ImageFiles, SplitFiles
from d2v.vision.layout import class_name, split_folders
from d2v.vision.reading import Channels, Reader
from d2v.vision.tree import RUNS, Folder, gather, scan

EMPTY = "folders without images"
BESIDE_SPLITS = "images and folders next to the splits"
BESIDE_CLASSES = "images next to the class folders"


class ImageFolder(ImageFiles):
    """Image files below a folder, at any depth, in the order of their paths; ids are indices in that order.

    Subfolders with images are the classes, in sorted order. Images next to them, in the folder itself, are not used. If
    there are more of them than images in the subfolders, or only one subfolder, there are no classes and all images are
    used. A file is an image if Pillow supports it, by its extension or its first bytes. Hidden files and folders, run
    folders and files of operating systems are left out. Links are followed, and every real file counts once. Split
    folders are not detected.

    Args:
        folder: folder with the images.
        channels: 3 = RGB, 1 = grey.
        labelled: False = subfolders are not classes, and all images are used.

    Raises:
        DataError: if the folder cannot be read or contains no images.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "cat").mkdir()
    ...     Image.new("RGB", (4, 4)).save(Path(folder) / "cat" / "1.png")
    ...     images = ImageFolder(Path(folder))
    >>> images.classes, images.name(0), images.label(0)
    (('cat',), 'cat/1.png', 0)
    """

    def __init__(self, folder: Path, *, channels: Channels = 3, labelled: bool = True) -> None:
        self.folder = folder
        found = gather([("train", "", scan(str(folder)), False)])
        paths = found.images["train"]
        files = _split_files(paths, "", found.unused) if labelled else SplitFiles(paths=paths)
        if not paths:
            raise FileSet(path=str(folder), root="", parts={}, has_splits=False, unused=found.unused).empty()
        super().__init__(str(folder), files, Reader(channels=channels))


def read_folder(path: str) -> FileSet:
    """Return the images of a folder by split.

    Raises:
        DataError: if the folder cannot be read, or its subfolders are ambiguous (see `split_folders`).
    """
    root = scan(path)
    folders = split_folders(path, root)
    children = root.children()
    starts = [(split, f"{name}/", children[name], name in root.linked) for split, name in folders.items()]
    found = gather(starts or [("train", "", root, False)])
    unused = found.unused
    if folders:
        _add_beside(root, set(folders.values()), unused)
    parts, notes = {}, []
    for split, prefix, folder, _ in starts or [("train", "", root, False)]:
        paths = found.images[split]
        if folders and not paths and any(found.images.values()):
            continue
        parts[split] = _split_files(paths, prefix, unused)
        _add_empty(folder, prefix, paths, unused)
        notes += _wrapped(path, prefix, folder, parts[split])
    return FileSet(path=path, root=path, parts=parts, has_splits=bool(folders), unused=unused, notes=tuple(notes))


def _split_files(paths: list[str], prefix: str, unused: dict[str, list[str]]) -> SplitFiles:
    """Return images with their classes, by the rule of `ImageFolder`; add images next to the classes to `unused`."""
    firsts = _first_folders(paths, prefix)
    folders = set(firsts) - {""}
    num_loose = firsts.count("")
    if num_loose and (len(folders) < 2 or 2 * num_loose > len(paths)):
        return SplitFiles(paths=paths)
    if num_loose:
        unused.setdefault(BESIDE_CLASSES, []).extend(
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


def _add_beside(root: Folder, taken: set[str], unused: dict[str, list[str]]) -> None:
    """Add the contents of the folder itself, next to the splits, to `unused`."""
    others = [name for name, one in root.children().items() if name not in taken and one.holds_images()]
    unused.setdefault(BESIDE_SPLITS, []).extend(f"{name}/" for name in others)
    unused[BESIDE_SPLITS] += sorted(root.images + root.linked_images)
    unused.setdefault(EMPTY, []).extend(
        name for name, one in root.children().items() if name not in taken and not one.holds_images()
    )
    unused.setdefault(RUNS, []).extend(name for name, one in {**root.folders, **root.linked}.items() if one.is_run)
    for kind, name in root.others:
        unused.setdefault(kind, []).append(name)


def _add_empty(folder: Folder, prefix: str, paths: list[str], unused: dict[str, list[str]]) -> None:
    """Add folders at the level of the classes that contain no images to `unused`."""
    filled = set(_first_folders(paths, prefix))
    named = {name for names in unused.values() for name in names}
    empty = [f"{prefix}{name}" for name in folder.children() if name not in filled]
    unused.setdefault(EMPTY, []).extend(name for name in empty if name not in named)


def _wrapped(path: str, prefix: str, folder: Folder, files: SplitFiles) -> list[str]:
    """Return a note if the only class contains only folders: these may be the classes."""
    if len(files.classes) != 1 or folder.images or folder.linked_images:
        return []
    ((name, one),) = [(name, one) for name, one in folder.children().items() if one.holds_images()][:1]
    inside = [below for below in one.children().values() if below.holds_images()]
    if len(inside) < 2 or one.images or one.linked_images:
        return []
    if prefix:
        where, change = f" of {escaped(prefix)}", f"move them up into {escaped(prefix)}"
    else:
        where, change = "", f"give data.path={escaped(path.rstrip('/'))}/{escaped(name)}"
    return [f"the only class{where} is {escaped(name)}, which contains folders: if they are the classes, {change}"]
