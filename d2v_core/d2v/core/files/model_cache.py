"""Published models on this machine: downloaded once into the cache folder, then read from there.

The publishers give no digests. So the first download is trusted and recorded, and what differs from the record later is
refused.
"""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from d2v._cache import cache_folder
from d2v.core.files.atomic import write_text
from d2v.core.files.catalogue import PublishedModel, published_models
from d2v.core.files.downloads import DigestError, DownloadError, ShownProgress, download, file_digest
from d2v.core.files.folder_lock import FolderLock, InUseError
from d2v.core.foreign.sources import BESIDE, CONFIG, WEIGHTS
from d2v.core.suggestions import nearest

_logger = logging.getLogger(__name__)
_ALGORITHM = "sha256"
_SECONDS_BETWEEN_TRIES = 0.2
_NOT_FOUND = 404


def located(source: str | os.PathLike[str]) -> Path:
    """The path of a model: a published model by name is downloaded, unless it is there; anything else is a path.

    A file or folder of this path comes first, so that nothing is downloaded in its place.

    Args:
        source: a path, or a name from `published_models`.

    Raises:
        DownloadError: if the model cannot be downloaded, or differs from its record.
        PluginError: as `published_models`.
        OSError: if the cache folder cannot be written.

    >>> located("run/model")
    PosixPath('run/model')
    """
    model = _named(source)
    return Path(source) if model is None else fetch(model)


def pretrained_of(source: str | os.PathLike[str]) -> str | None:
    """The name of the model that a published model was fine-tuned from, if its file may need that.

    >>> pretrained_of("data2vec2/base_imagenet_ft")
    'data2vec2/base_imagenet'
    """
    model = _named(source)
    return None if model is None else model.pretrained


def _named(source: str | os.PathLike[str]) -> PublishedModel | None:
    path = Path(source)
    return None if path.exists() else published_models().get(path.as_posix())


def similar_name(source: Path) -> str:
    """The end of a message on a path that does not exist: the published model that may be meant; else empty."""
    return nearest(source.as_posix(), published_models())


def cached(model: PublishedModel) -> Path:
    """Where a published model is, or would be, in the cache folder: a file, or a folder of Hugging Face.

    >>> cached(published_models()["data2vec2/base_libri"]).parts[-4:]
    ('models', 'data2vec2', 'base_libri', 'base_libri.pt')
    """
    folder = cache_folder() / "models" / model.name
    return folder if model.form == "hugging-face" else folder / _last(model.address)


def is_cached(model: PublishedModel) -> bool:
    """Whether a published model is completely in the cache folder."""
    place = cached(model)
    if model.form == "hugging-face":
        return (place / CONFIG).is_file() and any((place / name).is_file() for name in WEIGHTS)
    return place.is_file()


def fetch(model: PublishedModel) -> Path:
    """The path of a published model in the cache folder, where it is downloaded if it is missing.

    An interrupted download is continued by the next call. If another process downloads the same model, this one waits.
    With `D2V_OFFLINE=1` nothing is downloaded.

    Raises:
        DownloadError: naming the address, and the path for a file that was downloaded by other means.
        OSError: if the cache folder cannot be written.
    """
    place, record = cached(model), _Record(_record_of(model))
    if not is_cached(model):
        _refuse_offline(model, place)
        folder = place if model.form == "hugging-face" else place.parent
        with _alone(folder, model.name):
            if not is_cached(model):  # another process may have downloaded it meanwhile
                _logger.warning("%s (licence of the weights: %s): downloading to %s", model.name, model.licence, folder)
                _download(model, folder, record)
    for path in [place / name for name in (CONFIG, *BESIDE, *WEIGHTS)] if place.is_dir() else [place]:
        if path.is_file():
            record.check(path)
    return place


def _download(model: PublishedModel, folder: Path, record: "_Record") -> None:
    if model.form == "file":
        _one(model, model.address, folder, record)
        return
    _one(model, f"{model.address}/{CONFIG}", folder, record)
    for name in BESIDE:
        _first_of(model, [name], folder, record)
    # The weights come last: where they are, the folder is complete.
    if not _first_of(model, WEIGHTS, folder, record):
        raise DownloadError(f"{model.address} has neither {' nor '.join(WEIGHTS)}")


def _first_of(model: PublishedModel, names: "tuple[str, ...] | list[str]", folder: Path, record: "_Record") -> bool:
    """Download the first of some files that the server has; whether it has one."""
    for name in names:
        try:
            _one(model, f"{model.address}/{name}", folder, record)
        except DownloadError as error:
            if error.status != _NOT_FOUND:
                raise
        else:
            return True
    return False


def _one(model: PublishedModel, address: str, folder: Path, record: "_Record") -> None:
    path = folder / _last(address)
    before = record.digest(path.name)
    try:
        download(
            address,
            path,
            digest=None if before is None else f"{_ALGORITHM}:{before}",
            progress=ShownProgress(f"{model.name} {path.name}"),
        )
    except DigestError as error:
        raise DownloadError(
            f"{error}. The expected digest is that of the first download, in {record.path}; delete that file if the "
            "publisher has replaced the model"
        ) from error
    except DownloadError as error:
        raise DownloadError(f"{error}; or put the file at {path} yourself", status=error.status) from error
    record.check(path)


def _refuse_offline(model: PublishedModel, place: Path) -> None:
    if os.environ.get("D2V_OFFLINE") in (None, "", "0"):
        return
    what = "the files below" if model.form == "hugging-face" else "the file"
    raise DownloadError(
        f"{model.name} is not in the cache folder, and D2V_OFFLINE forbids downloads: put {what} {model.address} at "
        f"{place}, or unset D2V_OFFLINE"
    )


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Lock a folder; wait for a process that has locked it."""
    folder.mkdir(parents=True, exist_ok=True)
    told = False
    while True:
        try:
            lock = FolderLock(folder)
            break
        except InUseError as error:
            if not told:
                _logger.warning("%s: %s, which downloads the model; waiting for it", name, error)
            told = True
            time.sleep(_SECONDS_BETWEEN_TRIES)
    try:
        yield
    finally:
        lock.release()


@frozen
class _Record:
    """Size, digest and time of the files of a model, as they were when they were first seen.

    Args:
        path: of the file that keeps them, beside the model's folder, so that it stays if that is deleted.
    """

    path: Path

    def digest(self, name: str) -> str | None:
        """Return the recorded digest of a file; None = it was never seen."""
        found = self._read().get(name)
        return None if found is None else str(found[_ALGORITHM])

    def check(self, path: Path) -> None:
        """Record a file, or compare it with its record; it is read only if its size or its time has changed.

        Raises:
            DownloadError: if it is another one.
        """
        known = self._read()
        state, before = path.stat(), known.get(path.name)
        now = {"size": state.st_size, "modified": state.st_mtime_ns}
        if before is not None and all(before[key] == value for key, value in now.items()):
            return
        digest = file_digest(path, _ALGORITHM)
        if before is not None and before[_ALGORITHM] != digest:
            raise DownloadError(
                f"{path} has changed: its {_ALGORITHM} digest is {digest}, recorded was {before[_ALGORITHM]}. Delete "
                f"it to download it again, or delete {self.path} to accept it"
            )
        text = json.dumps({**known, path.name: {**now, _ALGORITHM: digest}}, indent=1)
        try:
            write_text(self.path, f"{text}\n")
        except OSError as error:  # a shared cache that only others may write is used as it is
            _logger.info("%s cannot be recorded: %s", path, error)

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            known = json.loads(self.path.read_text())
            return {name: {key: one[key] for key in ("size", "modified", _ALGORITHM)} for name, one in known.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DownloadError(f"{self.path} is broken; delete it to record the files afresh") from error


def _record_of(model: PublishedModel) -> Path:
    folder = cache_folder() / "models" / model.name
    return folder.with_name(f"{folder.name}.json")


def _last(address: str) -> str:
    return address.rpartition("/")[2]
