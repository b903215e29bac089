"""The method of docs/extending.md as a package of its own, installed by pip, used from outside."""

from __future__ import annotations

import pathlib
import re

import pytest

from .packaged import block, installed, mlo, python

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "my-package"
version = "0.1"

"""

CHECK = """
import mlo
from mlo.testing import check_method
method = mlo.make_method("steepest-descent", iterations=150)
print(type(method).__module__)
print(check_method(method, problems=[mlo.testing.ridge()]))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> pathlib.Path:
    package, site = (tmp_path_factory.mktemp(name) for name in ("package", "site"))
    files = {
        "pyproject.toml": PROJECT + block("extending.md", "toml"),
        "my_package/__init__.py": "",
        "my_package/descent.py": block("extending.md", "python"),
    }
    return installed(package, site, files)


def test_the_method_has_fewer_than_twenty_lines():
    written = [line for line in block("extending.md", "python").splitlines() if line.strip()]
    assert len(written) < 20


def test_an_installed_package_offers_its_method_by_name(site, tmp_path):
    assert re.search(r"steepest-descent +Steepest descent with", mlo(site, tmp_path, "list"))
    printed = python(site, tmp_path, CHECK)
    assert printed.startswith("my_package.descent")
    assert re.search(r"ridge +\S+ +\S+ +151 +converged +exact", printed), printed


def test_the_method_runs_in_a_recipe_of_another_package(site, tmp_path):
    words = "graph lfm-reweighting --hypergradient steepest-descent"
    assert "SteepestDescent" in mlo(site, tmp_path, words)
