"""Detect image files by a known file extension, otherwise by their first bytes.

Pillow is imported on the first call.
"""

import warnings
from functools import cache

# Vector formats that Pillow renders with another program, and containers that it identifies but cannot decode.
_NOT_READ = frozenset(["BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"])
_FIRST = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM")
_PREFIX = 16  # bytes that Pillow checks


@cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the supported formats: the frequent ones first, those without a signature last.

    >>> formats()[:2], "AVIF" in formats(), "EPS" in formats()
    (('JPEG', 'PNG'), True, False)
    """
    from PIL import Image

    Image.init()
    rest = [name for name in Image.OPEN if name not in _NOT_READ and name not in _FIRST]
    rest.sort(key=lambda name: Image.OPEN[name][1] is None)
    return tuple([name for name in _FIRST if name in Image.OPEN] + rest)


@cache
def known_endings() -> frozenset[str]:
    """File extensions of these formats, without the dot, in lower case.

    >>> {"jpg", "jfif", "jp2", "avif", "png"} <= known_endings(), "txt" in known_endings()
    (True, False)
    """
    from PIL import Image

    known = formats()
    by_ending = Image.registered_extensions()
    # MPO, from stereo cameras, is opened as a JPEG.
    return frozenset(ending[1:] for ending, name in by_ending.items() if name in known or name == "MPO")


def is_image(path: str) -> bool:
    """Return whether the content of a file starts like an image, independent of its name.

    Formats without a signature (TGA) are detected only by their extensions.

    Raises:
        OSError: if the file cannot be opened.
    """
    from PIL import Image

    with open(path, "rb") as file:  # noqa: PTH123 - names may be any bytes, and there may be many
        prefix = file.read(_PREFIX)
    candidates = [name for name in formats() if _accepts(name, prefix)]
    if not candidates:
        return False
    try:
        # Text may start like a simple format ("P6 is ..."), so parse the header.
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=candidates):
            return True
    except Image.DecompressionBombError:  # the reader checks the size
        return True
    except OSError as error:
        if error.errno is not None:
            raise
        return False
    except Exception:  # decoders raise anything on other files
        return False


def _accepts(name: str, prefix: bytes) -> bool:
    from PIL import Image

    accept = Image.OPEN[name][1]
    if accept is None:
        return False
    try:
        return accept(prefix) is True or accept(prefix) == 1
    except Exception:  # the prefix is too short
        return False
