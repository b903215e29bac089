"""Data sets by name, and how they are told apart."""

from __future__ import annotations

import ast
import hashlib
import pathlib
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlo.errors import DataError
from problems import datasets
from problems.datasets import DATA_SETS, find_path, fingerprint, load_data_set, load_digits


def test_digits_come_without_a_test_part():
    data = load_data_set("digits")
    images, labels = load_digits()
    assert torch.equal(data.train[0], images)
    assert torch.equal(data.train[1], labels)
    assert (data.name, data.source, data.classes) == ("digits", "digits", 10)
    assert data.test is None
    assert data.superclasses is None
    assert data.fingerprint == fingerprint(images, labels)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(
        DataError, match=r"expected one of digits, .*'cifar_10'.*did you mean 'cifar10'"
    ):
        load_data_set("cifar_10")
    assert DATA_SETS == (
        "digits", "mnist1d", "cifar10", "cifar100", "animal10n", "clothing1m", "imagenet",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["digits", "mnist1d"])
def test_sets_without_files_take_no_path(name):
    with pytest.raises(DataError, match=f"path: expected none for '{name}', found 'x'"):
        load_data_set(name, "x")


@pytest.mark.parametrize("name", ["digits", "mnist1d", "cifar10", "cifar100"])
def test_sets_of_one_size_take_no_size(name):
    with pytest.raises(DataError, match=f"size: expected none for '{name}', found 64"):
        load_data_set(name, size=64)


def test_digits_without_scikit_learn_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataError, match=r"mlo-engine\[data\]"):
        load_data_set("digits")


def test_importing_the_library_imports_none_of_the_extras():
    """No module of the library names one outside of a function."""
    names = set()
    for file in pathlib.Path(datasets.__file__).parent.glob("*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module).partition(".")[0])
    assert {"torch", "numpy"} <= names
    assert not names & {"PIL", "mnist1d", "sklearn", "matplotlib", "requests", "scipy"}


def test_a_folder_is_found_from_here_and_from_the_environment(tmp_path, monkeypatch):
    (tmp_path / "data" / "set").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_path("data/set") == str(tmp_path / "data" / "set")
    with pytest.raises(DataError, match="expected a file or a folder, found none at"):
        find_path("set")
    monkeypatch.setenv("MLO_DATA", str(tmp_path / "data"))
    assert find_path("set") == str(tmp_path / "data" / "set")


def test_the_fingerprint_is_a_sha256_of_types_shapes_and_bytes():
    x, y = torch.tensor([[1, 2]], dtype=torch.uint8), torch.tensor([3], dtype=torch.int64)
    written = b"torch.uint8 [1, 2]\n\x01\x02" + b"torch.int64 [1]\n\x03" + bytes(7)
    assert fingerprint(x, y) == hashlib.sha256(written).hexdigest()
    assert len({fingerprint(x), fingerprint(x.T), fingerprint(x.flatten())}) == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.bool])
def test_every_type_has_a_fingerprint_that_layout_does_not_change(dtype):
    x = torch.arange(6).reshape(2, 3).to(dtype)
    assert fingerprint(x) == fingerprint(x.T.contiguous().T)
    assert fingerprint(x[:0]) != fingerprint(x)


@settings(deadline=None)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=20), st.data())
def test_any_change_changes_the_fingerprint(values, data):
    x = torch.tensor(values, dtype=torch.uint8)
    other = x.clone()
    other[data.draw(st.integers(0, len(values) - 1))] += 1
    assert fingerprint(other) != fingerprint(x)
