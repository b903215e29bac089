"""The command line as a process of its own, and what it printed as one line."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence

import mlo

WIDTH = 80
ROOT = pathlib.Path(mlo.__file__).parent.parent
CODE = "import sys; from mlo.cli import main; sys.exit(main())"


def joined(text: str) -> str:
    """One line, as it was before it was folded to the width of the terminal."""
    return " ".join(text.split())


def too_long(text: str) -> list[str]:
    return [line for line in text.splitlines() if len(line) > WIDTH]


def escapes(text: str) -> list[str]:
    return re.findall(r"[\x1b\r\b]", text)


def environment(*sites: pathlib.Path, **more: str) -> dict[str, str]:
    """A bare environment in which the packages at `sites` are installed."""
    paths = os.pathsep.join(map(str, (ROOT, *sites)))
    path = os.environ.get("PATH", "")
    return {"PATH": path, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


def process(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-W", "error", "-c", CODE, *words]


def call(
    words: Sequence[str], folder: pathlib.Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run `mlo` with pipes for its output."""
    return subprocess.run(
        process(words),
        cwd=folder,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
