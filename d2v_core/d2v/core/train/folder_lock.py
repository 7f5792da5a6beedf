"""A folder that one process at a time may use; the lock ends with the process."""

import os
from pathlib import Path

_HELD: set[Path] = set()  # folders of this process: the system's locks only keep other processes out


class InUseError(RuntimeError):
    """A folder is in use; the message says by which process."""


class FolderLock:
    """Holds a folder until it is released.

    Args:
        path: of a folder that exists.

    Raises:
        InUseError: if this process or another one holds it.
        OSError: if its lock file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        # First: closing another descriptor of the file would end the lock that this process has.
        if self.path in _HELD:
            raise InUseError(f"run folder {path} is in use by this process; close it first")
        self._descriptor: int | None = _locked(path)
        _HELD.add(self.path)

    def release(self) -> None:
        """Let others use it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            _HELD.discard(self.path)


def _locked(path: Path) -> int:
    descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        import fcntl
    except ModuleNotFoundError:  # no such locks on Windows
        pass
    else:
        try:
            # Not flock: forked data workers would hold that on, after their parent was killed.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise InUseError(
                f"run folder {path} is in use by process {holder or 'unknown'}; wait for it or give another out"
            ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor
