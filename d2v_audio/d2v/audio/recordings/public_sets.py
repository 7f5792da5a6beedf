"""Public data sets of speech: download, unpack, and write manifests and letters.

LibriSpeech (Panayotov et al. 2015) has transcripts. Libri-Light (Kahn et al. 2020) has whole chapters without, and a
few hours of LibriSpeech as sets of limited labels.
"""

import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from attrs import frozen

from d2v.audio.recordings.dictionary import librispeech_dictionary
from d2v.audio.recordings.label_files import write_labels
from d2v.audio.recordings.manifest_files import write_manifest
from d2v.audio.recordings.transcripts import LETTERS, WORDS
from d2v.core.data import DataError, escaped
from d2v.core.files.atomic import write_text
from d2v.core.files.downloads import Progress, download


@frozen(kw_only=True)
class Subset:
    """A part of a data set that can be prepared alone.

    Args:
        split: name of its manifest, and so of the split.
        address: of its archive.
        size: of the archive, for the user.
        digest: of the archive, see `d2v.core.files.downloads.download`.
        folder: folder of the archive to unpack; what exists under this name is complete.
        part: subfolder with the recordings of this subset.
        transcripts: whether it has LibriSpeech's transcript files.
    """

    split: str
    address: str
    size: str
    digest: str
    folder: str
    part: str = "."
    transcripts: bool = True


def _librispeech(name: str, size: str, digest: str) -> Subset:
    return Subset(
        split=name,
        address=f"http://www.openslr.org/resources/12/{name}.tar.gz",
        size=size,
        digest=f"sha256:{digest}",
        folder=f"LibriSpeech/{name}",
    )


def _unlabelled(name: str, size: str, digest: str) -> Subset:
    return Subset(
        split=f"train-{name}",
        address=f"https://dl.fbaipublicfiles.com/librilight/data/{name}.tar",
        size=size,
        digest=f"md5:{digest}",
        folder=name,
        transcripts=False,
    )


def _limited(name: str, part: str) -> Subset:
    return Subset(
        split=f"train-{name}",
        address="https://dl.fbaipublicfiles.com/librilight/data/librispeech_finetuning.tgz",
        size="0.6 GB",
        digest="sha256:5d1efdc777b548194d7e09ba89126e2188026df9fd57aa57eb14408d2b2342af",
        folder="librispeech_finetuning",
        part=part,
    )


LIBRISPEECH: dict[str, Subset] = {
    subset.split: subset
    for subset in (
        _librispeech("dev-clean", "337 MB", "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"),
        _librispeech("dev-other", "314 MB", "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"),
        _librispeech("test-clean", "346 MB", "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"),
        _librispeech("test-other", "328 MB", "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"),
        _librispeech("train-clean-100", "6.3 GB", "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"),
        _librispeech("train-clean-360", "23 GB", "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf"),
        _librispeech("train-other-500", "30 GB", "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2"),
    )
}
LIBRILIGHT: dict[str, Subset] = {
    "small": _unlabelled("small", "35 GB", "c49207eb86a8e8ac895561c37232041e"),
    "medium": _unlabelled("medium", "321 GB", "c75e7ac62471bfbf2db77528d62a9b74"),
    "large": _unlabelled("large", "3.05 TB", "4dfbac018f50b99797ece101fc9f0c30"),
    "10min": _limited("10min", "1h/0"),
    "1h": _limited("1h", "1h"),
    "10h": _limited("10h", "."),
}


def prepare(
    subset: Subset, dest: Path, *, mirror: str | None = None, progress: Progress | None = None
) -> dict[Path, str]:
    """Download and unpack a subset, and write its manifest and letters. Steps that are complete are skipped.

    Args:
        subset: what to prepare.
        dest: folder to write to; it is created.
        mirror: address of a folder with the same archives; None = the original server.
        progress: see `d2v.core.files.downloads.download`.

    Returns:
        What was written, in words, by file or folder.

    Raises:
        DownloadError: if the archive cannot be downloaded, or is damaged.
        DataError: if the archive cannot be unpacked, or is not this subset.
        OSError: if a file cannot be written.
    """
    written: dict[Path, str] = {}
    unpacked = dest / subset.folder
    if not unpacked.is_dir():
        name = PurePosixPath(subset.address).name
        address = subset.address if mirror is None else f"{mirror.rstrip('/')}/{name}"
        download(address, dest / name, digest=subset.digest, progress=progress)
        _unpack(dest / name, subset.folder, dest)
        written[unpacked] = "unpacked"
    manifest = dest / f"{subset.split}.tsv"
    if not manifest.exists():
        count, broken = write_manifest(manifest, unpacked / subset.part)
        written[manifest] = f"{count} recordings" + (f"; {len(broken)} cannot be read" if broken else "")
    if subset.transcripts:
        dictionary = dest / f"dict.{LETTERS}.txt"
        if not dictionary.exists():
            # Not the letters of these recordings: a few minutes may lack some that other subsets have.
            write_text(dictionary, librispeech_dictionary())
        if not all(manifest.with_suffix(f".{ending}").exists() for ending in (LETTERS, WORDS)):
            written |= write_labels(manifest, dest, subset.split)
    return written


def _unpack(archive: Path, folder: str, dest: Path) -> None:
    """Unpack an archive and delete it; the folder has its name only when it is complete."""
    if not hasattr(tarfile, "data_filter"):
        raise DataError("unpacking an archive safely needs Python 3.11.4 or later")
    unfinished = dest / f".{archive.name}.unpacking"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(unfinished, filter="data")
        found, target = unfinished / folder, dest / folder
        if not found.is_dir():
            raise DataError(f"{escaped(str(archive))} has no folder {folder}: it is the archive of something else")
        target.parent.mkdir(parents=True, exist_ok=True)
        for file in found.parent.iterdir():
            if file.is_file():  # the licence and the lists of speakers and books
                file.replace(target.parent / file.name)
        os.sync()
        found.rename(target)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{escaped(str(archive))} cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    archive.unlink()
