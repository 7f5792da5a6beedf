"""Download the official files of GLUE, and write a folder for each task.

The server sends an archive for each task. For MRPC it has the files of its authors instead, for training and for the
test, and a list of the pairs that GLUE takes from the training file for `dev.tsv`.
"""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from attrs import frozen

from d2v.core.data import DataError, escaped
from d2v.core.files.atomic import write_text
from d2v.core.files.downloads import Progress, download
from d2v.text.sentences.glue import LAYOUTS, GlueTask
from d2v.text.sentences.reading import line_error, read_text

_SERVER = "https://dl.fbaipublicfiles.com"
_PAIR_HEADER = "#1 ID\t#2 ID\t#1 String\t#2 String"


@frozen(kw_only=True)
class Source:
    """A file on a server.

    Args:
        address: of the file.
        digest: see `d2v.core.files.downloads.download`.
    """

    address: str
    digest: str

    @property
    def name(self) -> str:
        """Name of the file."""
        return PurePosixPath(self.address).name


@frozen(kw_only=True)
class GlueSet:
    """A task of GLUE.

    Args:
        folder: of its files, also in its archive.
        size: to download, for the user.
        sources: one archive, or for MRPC the files of the pairs for training, for the test and of `dev.tsv`.
    """

    folder: str
    size: str
    sources: tuple[Source, ...]


def _archive(name: str, size: str, digest: str, *, folder: str | None = None) -> GlueSet:
    source = Source(address=f"{_SERVER}/glue/data/{name}.zip", digest=f"sha256:{digest}")
    return GlueSet(folder=folder or name, size=size, sources=(source,))


GLUE_SETS: dict[GlueTask, GlueSet] = {
    "cola": _archive("CoLA", "0.4 MB", "f212fcd832b8f7b435fb991f101abf89f96b933ab400603bf198960dfc32cbff"),
    "mnli": _archive("MNLI", "313 MB", "e7c1d896d26ed6caf700110645df426cc2d8ebf02a5ab743d5a5c68ac1c83633"),
    "mrpc": GlueSet(
        folder="MRPC",
        size="1.5 MB",
        sources=(
            Source(
                address=f"{_SERVER}/senteval/senteval_data/msr_paraphrase_train.txt",
                digest="sha256:60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89",
            ),
            Source(
                address=f"{_SERVER}/senteval/senteval_data/msr_paraphrase_test.txt",
                digest="sha256:a04e271090879aaba6423d65b94950c089298587d9c084bf9cd7439bd785f784",
            ),
            Source(
                address=f"{_SERVER}/glue/data/mrpc_dev_ids.tsv",
                digest="sha256:971d7767d81b997fd9060ade0ec23c4fc31cbb226a55d1bd4a1bac474eb81dc7",
            ),
        ),
    ),
    "qnli": _archive(
        "QNLIv2", "10.6 MB", "e634e78627a29adaecd4f955359b22bf5e70f2cbd93b493f2d624138a0c0e5f5", folder="QNLI"
    ),
    "qqp": _archive(
        "QQP-clean", "41.7 MB", "40e7c862c04eb26ee04b67fd900e76c45c6ba8e6d8fab4f8f1f8072a1a3fbae0", folder="QQP"
    ),
    "rte": _archive("RTE", "0.7 MB", "6bf86de103ecd335f3441bd43574d23fef87ecc695977a63b82d5efb206556ee"),
    "sst_2": _archive("SST-2", "7.4 MB", "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa"),
    "sts_b": _archive("STS-B", "0.8 MB", "e60a6393de5a8b5b9bac5020a1554b54e3691f9d600b775bd131e613ac179c85"),
}


def prepare(task: GlueTask, dest: Path, *, mirror: str | None = None, progress: Progress | None = None) -> Path | None:
    """Download the files of a task, and write its folder of `train.tsv`, `dev.tsv` and `test.tsv`.

    Args:
        task: the task.
        dest: folder to write to; it is created.
        mirror: address of a folder with the same files; None = the original server.
        progress: see `d2v.core.files.downloads.download`.

    Returns:
        The folder; None if it was complete already.

    Raises:
        DownloadError: if a file cannot be downloaded, or is damaged.
        DataError: if an archive cannot be unpacked, or a file is not what was expected.
        OSError: if a file cannot be written.
    """
    one = GLUE_SETS[task]
    target = dest / one.folder
    if target.is_dir():
        return None
    files = []
    for source in one.sources:
        address = source.address if mirror is None else f"{mirror.rstrip('/')}/{source.name}"
        download(address, dest / source.name, digest=source.digest, progress=progress)
        files.append(dest / source.name)
    names = [f"{name}.tsv" for name in ("train", *LAYOUTS[task].splits)]
    if len(files) == 1:
        _publish(target, lambda folder: _unpack(files[0], one.folder, names, folder))
    else:
        train, test, dev_pairs = files
        _publish(target, lambda folder: _divide(train, test, dev_pairs, folder))
    for file in files:
        file.unlink()
    return target


def _publish(target: Path, write: Callable[[Path], None]) -> None:
    """Write files into a folder that has its name only when it is complete."""
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        write(unfinished)
        os.sync()
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _unpack(archive: Path, folder: str, names: list[str], target: Path) -> None:
    """Copy the named files, and no others, from a folder of an archive."""
    try:
        with zipfile.ZipFile(archive) as zipped:
            for name in names:
                with zipped.open(f"{folder}/{name}") as member, (target / name).open("wb") as file:
                    shutil.copyfileobj(member, file)
    except KeyError as error:
        raise DataError(f"{escaped(str(archive))} has no file {error.args[0]}: it is another archive") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{escaped(str(archive))} cannot be unpacked: {error}") from error


def _divide(train: Path, test: Path, dev_pairs: Path, target: Path) -> None:
    """Write MRPC: the listed pairs of the training file are `dev.tsv`; `test.tsv` gets numbers in place of labels."""
    listed = {tuple(line.split("\t")) for line in read_text(str(dev_pairs)).splitlines()}
    parts: dict[str, list[str]] = {"train": [], "dev": []}
    for cells in _rows(train):
        parts["dev" if (cells[1], cells[2]) in listed else "train"].append("\t".join(cells))
    if not parts["dev"] or not parts["train"]:
        raise DataError(f"{escaped(str(dev_pairs))} is not the list of pairs of {escaped(str(train))}")
    for name, lines in parts.items():
        write_text(target / f"{name}.tsv", "\n".join([f"Quality\t{_PAIR_HEADER}", *lines, ""]))
    lines = ["\t".join([str(number), *cells[1:]]) for number, cells in enumerate(_rows(test))]
    write_text(target / "test.tsv", "\n".join([f"index\t{_PAIR_HEADER}", *lines, ""]))


def _rows(path: Path) -> list[list[str]]:
    """Label, numbers and texts of the pairs in a file of the authors."""
    rows = []
    for number, line in enumerate(read_text(str(path)).split("\n"), 1):
        if number == 1 or not line.strip():
            continue
        cells = line.strip().split("\t")
        if len(cells) != 5:
            raise line_error(str(path), number, f"{len(cells)} columns, not the 5 of MRPC")
        rows.append(cells)
    return rows
