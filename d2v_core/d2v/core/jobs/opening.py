"""What a job says of its data before any work."""

import logging

from d2v.core.data import DataConfig
from d2v.core.train.gradients import world

_logger = logging.getLogger(__name__)


def say_contents(data: DataConfig) -> None:
    """Log in one line what a data set holds and what of it is not used, on the first rank.

    It is a warning where something is not used or noted, so that it is seen in a notebook as well; else information.

    Raises:
        DataError: if the data are not there, or cannot be used as they are.
    """
    rank, _ = world()
    if rank == 0:
        found = data.contents()
        _logger.log(logging.WARNING if found.unused or found.notes else logging.INFO, "%s", found.line())
