"""Image files as samples: of a folder, a list or one file."""

from pathlib import Path

from torch import Tensor

from d2v.core.data.folders import Files, FileSet, Medium, SplitFiles, gathered_files
from d2v.vision.endings import is_image, known_endings
from d2v.vision.reading import Channels, Reader

IMAGES = Medium(unit="images", extensions=known_endings, recognises=is_image, check="d2v data check-images")
"""Which files are images: those that Pillow supports, by their extension or their first bytes."""


class ImageFiles(Files):
    """Images of a list of files; an id is the index in that list.

    Args:
        root: folder that the paths are relative to.
        files: the files of a split.
        reader: reads the files.
        of_split: whether a folder that contains all files is the folder of their split.
    """

    def __init__(self, root: str, files: SplitFiles, reader: Reader, *, of_split: bool = False) -> None:
        super().__init__(root, files, of_split=of_split)
        self.reader = reader

    def __getitem__(self, id: int) -> tuple[Tensor, int | None]:
        """Return pixels, uint8 `c h w`, and class; raise `BrokenSampleError` if the file is not a complete image."""
        return self.reader.read(self.path(id)), self.label(id)


class ImageFileSet:
    """All splits of image files.

    Args:
        files: the files.
    """

    def __init__(self, files: FileSet) -> None:
        self.files = files
        self.splits, self.contents = files.splits, files.contents
        self.classes, self.numbering = files.classes, files.numbering

    def open(self, split: str | None, reader: Reader) -> ImageFiles:
        """The images of a split; None = of all splits, without labels if there are several.

        Raises:
            DataError: if the split does not exist or has no images.
        """
        files = self.files
        return ImageFiles(files.root, files.selected(split), reader, of_split=files.has_splits and split is not None)


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
        files = gathered_files(str(folder), IMAGES, labelled=labelled)
        super().__init__(str(folder), files, Reader(channels=channels))
