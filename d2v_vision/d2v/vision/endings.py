"""Which files are images: by their ending where that is known, else by their first bytes.

Pillow is imported when it is asked.
"""

import warnings
from functools import cache

# Drawings that another program would be run for, and containers that Pillow knows by name but cannot decode.
_NOT_READ = frozenset(["BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"])
_FIRST = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM")
_PREFIX = 16  # bytes that Pillow looks at


@cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read, the frequent ones first, those without a mark of their own last.

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
    """The endings of these formats, without the dot, in lower case.

    >>> {"jpg", "jfif", "jp2", "avif", "png"} <= known_endings(), "txt" in known_endings()
    (True, False)
    """
    from PIL import Image

    known = formats()
    by_ending = Image.registered_extensions()
    # MPO, of cameras with two lenses, is opened as the JPEG that it is.
    return frozenset(ending[1:] for ending, name in by_ending.items() if name in known or name == "MPO")


@cache
def endings_as_written() -> frozenset[str]:
    """The endings with the dot, in lower, upper and title case."""
    return frozenset(f".{form}" for end in known_endings() for form in (end, end.upper(), end.title()))


def ending(name: str) -> str:
    """The ending of a file name in lower case, without the dot; "" = none.

    >>> ending("a.b.JPG"), ending("README")
    ('jpg', '')
    """
    return name.rpartition(".")[2].lower() if "." in name else ""


def is_image(path: str) -> bool:
    """Whether a file begins as an image does, whatever it is called.

    Formats that have no mark at their beginning (TGA) are known by their endings alone.

    Raises:
        OSError: if it cannot be opened.
    """
    from PIL import Image

    with open(path, "rb") as file:  # noqa: PTH123 - names are bytes of any kind, and there may be many
        prefix = file.read(_PREFIX)
    candidates = [name for name in formats() if _accepts(name, prefix)]
    if not candidates:
        return False
    try:
        # Texts may begin as simple formats do ("P6 is ..."): their header decides.
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=candidates):
            return True
    except Image.DecompressionBombError:  # its size is for the reader to judge
        return True
    except OSError as error:
        if error.errno is not None:
            raise
        return False
    except Exception:  # what decoders make of other files
        return False


def _accepts(name: str, prefix: bytes) -> bool:
    from PIL import Image

    accept = Image.OPEN[name][1]
    if accept is None:
        return False
    try:
        return accept(prefix) is True or accept(prefix) == 1
    except Exception:  # too short for it
        return False
