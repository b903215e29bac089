"""The command `mlo`: one module for each of its commands, on the library `click`."""

from mlo.cli.program import main

__all__ = ["main"]
