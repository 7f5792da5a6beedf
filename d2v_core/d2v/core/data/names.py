r"""Conversion of sample names to one line of valid UTF-8, and back.

A file name on Linux is any bytes except / and NUL. Names are shown and written escaped, so that a list of names has
exactly one line per name.
"""

import re
import unicodedata

_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPE = re.compile(r"\\(?:\\|n|r|t|x([0-9a-f]{2})|u([0-9a-f]{4}))")


def escaped(name: str) -> str:
    r"""Return a name in one line of valid UTF-8; `unescaped` is the inverse.

    A backslash becomes `\\`, a line break `\n`, other control characters `\x1b` or `\u2028`, a byte that is not valid
    UTF-8 `\xe9`. Everything else is unchanged.

    >>> escaped("a\nb.png"), escaped("caf\udce9.png"), escaped("café.png")
    ('a\\nb.png', 'caf\\xe9.png', 'café.png')
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(map(_escaped, name))


def unescaped(text: str) -> str:
    r"""Return the name that `escaped` converted: a path for `open`, on the system that it comes from.

    >>> unescaped("a\\nb.png") == "a\nb.png", unescaped("caf\\xe9.png") == "caf\udce9.png"
    (True, True)
    """
    return _ESCAPE.sub(_plain, text)


def _escaped(letter: str) -> str:
    if letter in _SHORT:
        return _SHORT[letter]
    if unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp"):
        return letter
    code = ord(letter)
    if code < 0x80:
        return f"\\x{code:02x}"
    # Python's representation of a byte that is not valid UTF-8 (PEP 383).
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _plain(found: "re.Match[str]") -> str:
    byte, code = found.groups()
    if byte is not None:
        number = int(byte, 16)
        return chr(number if number < 0x80 else 0xDC00 + number)
    if code is not None:
        return chr(int(code, 16))
    return next(plain for plain, short in _SHORT.items() if short == found.group())
