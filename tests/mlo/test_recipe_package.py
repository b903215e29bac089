"""The recipe of docs/recipes.md as a package of its own, installed by pip and used from outside."""

from __future__ import annotations

import pathlib
import re

import pytest

from .packaged import block, installed, mlo


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> pathlib.Path:
    package, site = (tmp_path_factory.mktemp(name) for name in ("package", "site"))
    files = {
        "decays.py": block("recipes.md", "python"),
        "pyproject.toml": block("recipes.md", "toml"),
    }
    return installed(package, site, files)


def test_the_recipe_has_fewer_than_forty_lines():
    assert len(block("recipes.md", "python").rstrip().splitlines()) < 40


def test_an_installed_package_offers_its_recipe_to_every_command(site, tmp_path):
    assert re.search(r"diabetes-decays +Learn weight decays", mlo(site, tmp_path, "list"))
    assert "<~ fit (response)" in mlo(site, tmp_path, "graph diabetes-decays")
    words = "run diabetes-decays --seeds 2 --ticks 20 --rate 0.05 --out new"
    assert "learn test error" in mlo(site, tmp_path, words)
    assert len((tmp_path / "new/metrics.csv").read_text().splitlines()) == 3
    assert "decays" in mlo(site, tmp_path, "check diabetes-decays")
    mlo(site, tmp_path, "report new")
    assert "diabetes-decays" in (tmp_path / "new/report.html").read_text()
