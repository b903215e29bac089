"""Packages made of what the documents show, installed by pip and used from outside."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Mapping

ROOT = pathlib.Path(__file__).parents[2]


def block(document: str, language: str) -> str:
    """The first block of a language in a document."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    found = re.search(rf"^```{language}\n(.*?)^```\n", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def installed(package: pathlib.Path, site: pathlib.Path, files: Mapping[str, str]) -> pathlib.Path:
    """Write a package into one folder and let pip install it into the other, which is returned."""
    for name, text in files.items():
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text(text)
    words = "pip install --quiet --no-deps --no-build-isolation --no-index --target"
    command = [sys.executable, "-m", *words.split(), str(site), str(package)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return site


def python(site: pathlib.Path, folder: pathlib.Path, code: str, *words: str) -> str:
    """Run code in a process of its own that finds the package; return what it printed to a pipe."""
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def mlo(site: pathlib.Path, folder: pathlib.Path, words: str) -> str:
    """Run a command of the command line there."""
    return python(
        site, folder, "import sys; from mlo.cli import main; sys.exit(main())", *words.split()
    )
