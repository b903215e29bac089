"""A folder of small checkpoints, and the names in it."""

from __future__ import annotations

import os

import pytest
import torch

from mlo.checkpoint_folder import CheckpointFolder


def state(tick: int, run: str = "first") -> dict:
    return {"tick": tick, "run": run, "w": torch.full((50,), float(tick))}


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path / "deep" / "checkpoints")


def names(folder: CheckpointFolder) -> list[str]:
    return sorted(os.listdir(folder.path))


def name(tick: int) -> str:
    return f"tick-{tick:010}.pt"
