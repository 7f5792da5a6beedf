"""The command `d2v`: arguments, help texts and what is printed. What a command does is `d2v.core.jobs`, one call."""

from d2v.core.cli.entry import main

__all__ = ["main"]
