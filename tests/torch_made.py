"""Files of `torch.save` assembled by hand, so that a test controls their content."""

import zipfile
from collections.abc import Mapping
from pathlib import Path


def write_archive(path: Path, pickled: bytes, members: Mapping[str, bytes] | None = None, **options: object) -> Path:
    """A zip archive with this pickle, and further members below its folder."""
    with zipfile.ZipFile(path, "w", **options) as archive:  # type: ignore[call-overload]
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", b"little")
        for name, content in (members or {}).items():
            archive.writestr(f"archive/{name}", content)
    return path


def storage(kind: str = "FloatStorage", count: int = 4, key: str = "0") -> bytes:
    """A storage by its persistent id."""
    return b"(Vstorage\nctorch\n%s\nV%s\nVcpu\nI%d\ntQ" % (kind.encode(), key.encode(), count)


def tensor(
    shape: str = "(I4\nt", stride: str = "(I1\nt", offset: int = 0, kind: str = "FloatStorage", count: int = 4
) -> bytes:
    """A tensor as torch.save stores one; shape and stride as pickled tuples."""
    rest = b"I%d\n" % offset + shape.encode() + stride.encode() + b"I00\nccollections\nOrderedDict\n(tRt"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage(kind, count) + rest + b"R"


def holding(value: bytes, key: str = "x") -> bytes:
    """The pickle of a mapping with one pickled value."""
    return b"(V%s\n" % key.encode() + value + b"d."
