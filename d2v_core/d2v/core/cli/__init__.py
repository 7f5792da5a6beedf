"""The command `d2v`: one file a command, each of them thin. What a command does is `d2v.core.jobs`, one call."""

from d2v.core.cli.entry import main

__all__ = ["main"]
