"""Report the contents of the data before any work, and check all of it."""

import logging
from collections.abc import Callable

from d2v.core.data import Batches, DataConfig, DataError, escaped
from d2v.core.train.ranks import world

_logger = logging.getLogger(__name__)


def say_contents(data: DataConfig) -> None:
    """Log on the first rank, in one line, what a data set contains and what of it is not used.

    The line is a warning if something is not used or has a note, so that it is also visible in a notebook; otherwise it
    is at level INFO.

    Raises:
        DataError: if the data do not exist or cannot be used.
    """
    rank, _ = world()
    if rank == 0:
        found = data.contents()
        _logger.log(logging.WARNING if found.unused or found.notes else logging.INFO, "%s", found.line())


def check_files(data: DataConfig, describe: Callable[[str, Batches], str], *, batch_size: int) -> None:
    """Read every sample of a data set once, and print what it contains, what is broken and what is not used.

    Args:
        data: the data set.
        describe: function from a split and its batches to the lines about it.
        batch_size: samples to read at a time.

    Raises:
        DataError: if the data cannot be used, or a sample is broken.
    """
    say_contents(data)
    contents = data.contents()
    broken = 0
    for split in contents.splits:
        batches = data.build(split, batch_size=batch_size)
        print(describe(split, batches))
        if batches.broken:
            print(batches.report())
        broken += len(batches.broken)
    if contents.unused:
        print(contents.listing())
    if broken:
        raise DataError(f"{broken} files of {escaped(data.path)} cannot be read; training skips them")
