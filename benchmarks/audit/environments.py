"""An environment for each library, with torch pinned."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

TORCH, NUMPY, JAX = "torch==2.13.0", "numpy==2.4.6", "jax==0.10.2"
LIMIT = 1800
"""Seconds for one installation."""


@dataclasses.dataclass(frozen=True)
class Library:
    """A library under audit.

    Attributes:
        script: in `peers/`.
        installs: arguments of `pip install`, one call each; none for this library itself.
        attempts: other arguments of `pip install`, tried without installing anything, whose
            answer is part of the results.
    """

    script: str
    installs: tuple[tuple[str, ...], ...] = ()
    attempts: tuple[tuple[str, ...], ...] = ()


LIBRARIES = {
    "mlo-engine": Library("with_mlo.py"),
    "betty-ml": Library(
        "with_betty.py",
        # Its metadata ask for Python < 3.11. Without --no-deps pip would ignore what all its
        # requirements ask for, too.
        ((TORCH, NUMPY), ("--no-deps", "--ignore-requires-python", "betty-ml==0.2.1")),
        (("betty-ml==0.2.1",), ("betty-ml",)),
    ),
    "boat-torch": Library("with_boat.py", (("boat-torch==1.1.1", TORCH, "torchvision==0.28.0"),)),
    "hypergrad": Library("with_hypergrad.py", (("hypergrad==0.0.1", TORCH, NUMPY),)),
    "torchopt": Library("with_torchopt.py", (("torchopt==0.7.3", TORCH, NUMPY),)),
    "higher": Library("with_higher.py", (("higher==0.2.1", TORCH, NUMPY),)),
    "jaxopt": Library("with_jaxopt.py", (("jaxopt==0.8.5", JAX, NUMPY),)),
    "optimistix": Library("with_optimistix.py", (("optimistix==0.1.0", JAX, NUMPY),)),
}


class InstallError(Exception):
    """What pip said."""


def interpreter(name: str, folder: pathlib.Path) -> pathlib.Path:
    """The Python of the library's environment, which is made where it is missing.

    Raises:
        InstallError: pip refuses.
    """
    library = LIBRARIES[name]
    if not library.installs:
        return pathlib.Path(sys.executable)
    home = folder / name
    stamp, wanted = home / "installed.json", json.dumps(library.installs)
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True, timeout=LIMIT)
        for arguments in library.installs:
            _pip(home, *arguments)
        stamp.write_text(wanted)
    return home / "bin/python"


def attempts(name: str, folder: pathlib.Path) -> dict[str, str]:
    """What pip answers where a user types something else: arguments -> its last line."""
    answers = {}
    for arguments in LIBRARIES[name].attempts:
        try:
            answer = _pip(folder / name, "--dry-run", "--ignore-installed", "--no-deps", *arguments)
        except InstallError as error:
            answer = str(error)
        answers[f"pip install {' '.join(arguments)}"] = answer
    return answers


def _pip(home: pathlib.Path, *arguments: str) -> str:
    """Run `pip install`, quietly but for what it would install."""
    python = str(home / "bin/python")
    command = [python, "-m", "pip", "--disable-pip-version-check", "install"]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False, timeout=LIMIT
    )
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        told = [line for line in said if line.startswith("ERROR: ")]
        raise InstallError((told or said or ["pip failed without a word"])[0])
    return (done.stdout.strip().splitlines() or [""])[-1]
