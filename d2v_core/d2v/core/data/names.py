r"""Names of samples as text: one line, valid UTF-8, and back.

A file name on Linux is any bytes but / and NUL. Names are shown and written escaped, so that a list of names has one
line for each, whatever they hold.
"""

import re
import unicodedata

_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPE = re.compile(r"\\(?:\\|n|r|t|x([0-9a-f]{2})|u([0-9a-f]{4}))")


def escaped(name: str) -> str:
    r"""A name in one line of valid UTF-8; `unescaped` gives it back.

    A backslash becomes `\\`, a line break `\n`, other control characters `\x1b` or `\u2028`, a byte that is no UTF-8
    `\xe9`. All else stays as it is.

    >>> escaped("a\nb.png"), escaped("caf\udce9.png"), escaped("café.png")
    ('a\\nb.png', 'caf\\xe9.png', 'café.png')
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(map(_escaped, name))


def unescaped(text: str) -> str:
    r"""The name that `escaped` has made a text of; a path for `open`, on the system that it comes from.

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
    # How Python holds a byte that is no UTF-8 (PEP 383).
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _plain(found: "re.Match[str]") -> str:
    byte, code = found.groups()
    if byte is not None:
        number = int(byte, 16)
        return chr(number if number < 0x80 else 0xDC00 + number)
    if code is not None:
        return chr(int(code, 16))
    return next(plain for plain, short in _SHORT.items() if short == found.group())
