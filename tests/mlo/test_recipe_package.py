"""The recipe of docs/recipes.md as a package of its own, installed by pip and used from outside."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The first block of a language in the document."""
    found = re.search(rf"^```{language}\n(.*?)^```\n", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> pathlib.Path:
    """A folder into which pip has installed the package."""
    package, site = (tmp_path_factory.mktemp(name) for name in ("package", "site"))
    (package / "decays.py").write_text(block("python"))
    (package / "pyproject.toml").write_text(block("toml"))
    words = "pip install --quiet --no-deps --no-build-isolation --no-index --target"
    command = [sys.executable, "-m", *words.split(), str(site), str(package)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return site


def mlo(site: pathlib.Path, folder: pathlib.Path, words: str) -> str:
    """Run a command in a process of its own; return what it printed into a pipe."""
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    code = "import sys; from mlo.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_recipe_has_fewer_than_forty_lines():
    assert len(block("python").rstrip().splitlines()) < 40


def test_an_installed_package_offers_its_recipe_to_every_command(site, tmp_path):
    assert re.search(r"diabetes-decays +Learn weight decays", mlo(site, tmp_path, "list"))
    assert "<~ fit (response)" in mlo(site, tmp_path, "graph diabetes-decays")
    words = "run diabetes-decays --seeds 2 --ticks 20 --rate 0.05 --out new"
    assert "learn test error" in mlo(site, tmp_path, words)
    assert len((tmp_path / "new/metrics.csv").read_text().splitlines()) == 3
    assert "decays" in mlo(site, tmp_path, "check diabetes-decays")
    mlo(site, tmp_path, "report new")
    assert "diabetes-decays" in (tmp_path / "new/report.html").read_text()
