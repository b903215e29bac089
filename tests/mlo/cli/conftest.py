"""A terminal of 80 columns that is none, and recipes that exist for one test."""

from __future__ import annotations

import pytest
import torch

from ..offered import CHAIN, TINY, install


@pytest.fixture(autouse=True)
def _float32(float64):
    torch.set_default_dtype(torch.float32)  # as in a process of its own


@pytest.fixture(autouse=True)
def _terminal(monkeypatch):
    """No terminal, and nothing in the environment that pretends there were one."""
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The folder of the test, with the recipe `tiny` installed."""
    install(tmp_path, monkeypatch, "mlo_cli_tiny", TINY, "[mlo.recipes]\ntiny=mlo_cli_tiny:recipe")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def chain(tmp_path, monkeypatch):
    """The folder of the test, with the recipe `chain` of two stages installed."""
    entries = "[mlo.recipes]\nchain=mlo_cli_chain:recipe"
    install(tmp_path, monkeypatch, "mlo_cli_chain", CHAIN, entries)
    monkeypatch.chdir(tmp_path)
    return tmp_path
