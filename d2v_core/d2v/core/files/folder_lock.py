"""Lock on a folder that only one process may use at a time; the lock ends with the process."""

import os
import threading
from pathlib import Path

_ONE_AT_A_TIME = threading.Lock()
_FILE = ".lock"
_HELD: set[Path] = set()  # folders of this process: the system's locks only exclude other processes


class InUseError(RuntimeError):
    """A folder is in use; the message names the folder and the process."""


class FolderLock:
    """Lock on a folder until `release`.

    Args:
        path: path of an existing folder.

    Raises:
        InUseError: if this process or another one holds the lock.
        OSError: if the lock file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._descriptor: int | None = None
        with _ONE_AT_A_TIME:
            # Check first: closing another descriptor of the file would release the lock that this process holds.
            if self.path in _HELD:
                raise InUseError(f"{path} is in use by this process")
            self._descriptor = _locked(path)
            _HELD.add(self.path)

    def release(self, *, delete: bool = False) -> None:
        """Release the lock.

        Args:
            delete: whether to delete its file, in a folder that others read.
        """
        if self._descriptor is not None:
            if delete:  # before the lock ends: who opens the folder from now on makes a file of its own
                (self.path / _FILE).unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
            _HELD.discard(self.path)


def _locked(path: Path) -> int:
    descriptor = os.open(path / _FILE, os.O_RDWR | os.O_CREAT)
    try:
        import fcntl
    except ModuleNotFoundError:  # not available on Windows
        pass
    else:
        try:
            # Not flock: forked data workers would keep the lock after their parent was killed.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise InUseError(f"{path} is in use by process {holder or 'unknown'}") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor
