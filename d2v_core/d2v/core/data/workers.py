"""Starting worker processes as copies of this one."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def forking() -> Iterator[None]:
    """Start worker processes inside this block: they do not collect the garbage that they inherit.

    A destructor may need what only this process has. The one of a gloo process group joins threads. A copy has none of
    them, and would abort.

    >>> with forking():
    ...     pass  # for example multiprocessing.Process(target=print).start()
    """
    if gc.get_freeze_count():  # the caller does the same for longer
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
