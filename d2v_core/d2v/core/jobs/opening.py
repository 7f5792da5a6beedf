"""Report the contents of the data before any work."""

import logging

from d2v.core.data import DataConfig
from d2v.core.train.gradients import world

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
