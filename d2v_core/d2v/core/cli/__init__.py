"""The command `d2v`: arguments, help texts and output. Each command calls one function of `d2v.core.jobs`."""

from d2v.core.cli.entry import main

__all__ = ["main"]
