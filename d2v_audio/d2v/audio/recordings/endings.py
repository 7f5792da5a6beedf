"""Which files are recordings: by their extension, otherwise by their first bytes."""

from d2v.core.data.folders import Medium

# What libsndfile decodes.
_FREQUENT = ("wav", "wave", "flac", "mp3", "ogg", "oga", "opus")
_RARE = ("aif", "aifc", "aiff", "au", "caf", "nist", "rf64", "snd", "sph", "voc", "w64")
_SIGNATURES = (b"fLaC", b"OggS", b"ID3", b".snd", b"caff", b"NIST_1A", b"RF64", b"riff\x2e\x91\xcf\x11")
_PREFIX = 12


def is_recording(path: str) -> bool:
    """Return whether the content of a file starts like a recording, independent of its name.

    MP3 files without an ID3 tag are detected only by their extension.

    Raises:
        OSError: if the file cannot be opened.
    """
    with open(path, "rb") as file:  # noqa: PTH123 - names may be any bytes
        prefix = file.read(_PREFIX)
    wave = prefix[:4] == b"RIFF" and prefix[8:12] == b"WAVE"
    aiff = prefix[:4] == b"FORM" and prefix[8:12] in (b"AIFF", b"AIFC")
    return wave or aiff or prefix.startswith(_SIGNATURES)


RECORDINGS = Medium(
    unit="recordings",
    extensions=lambda: frozenset([*_FREQUENT, *_RARE]),
    recognises=is_recording,
    check="d2v data check-recordings",
    own_splits=True,
)
"""Which files are recordings, and what they are called."""
