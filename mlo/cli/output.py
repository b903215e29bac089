"""What the commands print and where they write it."""

from __future__ import annotations

import os
import pathlib
import textwrap

import rich.console

from mlo.errors import ConfigurationError
from mlo.files import write_text


def new_console() -> rich.console.Console:
    """The standard output; where it is no terminal, 80 columns wide at most."""
    console = rich.console.Console()
    if not console.is_terminal:
        console.width = min(console.width, 80)
    return console


def show(console: rich.console.Console, text: str) -> None:
    """Print text as it is: no markup, no colour, no folding."""
    console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)


def show_folded(console: rich.console.Console, text: str) -> None:
    """Print a paragraph folded to the width of the console; long words stay whole."""
    lines = textwrap.wrap(text, console.width, break_long_words=False, break_on_hyphens=False)
    show(console, "\n".join(lines))


def complain(message: str) -> None:
    """Print what went wrong on the error stream."""
    console = rich.console.Console(stderr=True)
    console.print(f"mlo: {message}", markup=False, highlight=False, emoji=False)


def first_line(text: str | None) -> str:
    """The first line of a text that has one."""
    return (text or "").strip().partition("\n")[0]


def check_new_file(path: pathlib.Path) -> None:
    """Refuse a file that is there already, or that cannot be written, before any work is done.

    Raises:
        ConfigurationError: it exists, or its folder is absent or cannot be written to.
    """
    if path.exists():
        raise ConfigurationError(
            f"--out: expected the name of a new file, found '{path}'; choose another name, "
            "or delete it first"
        )
    check_folder_of(path)


def check_folder_of(path: pathlib.Path) -> None:
    """Refuse a file whose folder is absent or cannot be written to.

    Raises:
        ConfigurationError: naming the folder.
    """
    folder = path.parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise ConfigurationError(
            f"--out: expected '{folder}' to be a folder that can be written to; "
            "make it first, or choose another"
        )


def save(console: rich.console.Console, path: pathlib.Path, text: str) -> None:
    """Write a text file and say so."""
    write_text(path, text.rstrip("\n") + "\n")
    show(console, f"written to {path}")
