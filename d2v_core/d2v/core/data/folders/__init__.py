"""Files of a data set as users keep them: folders with splits and classes, lists, and what of them is not used.

Which files count is the `Medium` of a modality; nothing here opens a sample.
"""

from d2v.core.data.folders.file_set import Files, FileSet, SplitFiles
from d2v.core.data.folders.finding import find_files
from d2v.core.data.folders.folder import gathered_files
from d2v.core.data.folders.lists import LISTS
from d2v.core.data.folders.medium import Medium

__all__ = ["LISTS", "FileSet", "Files", "Medium", "SplitFiles", "find_files", "gathered_files"]
