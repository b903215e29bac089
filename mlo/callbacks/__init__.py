"""What watches a run: progress on the terminal, records in a file, early stopping, best weights."""

from __future__ import annotations

from mlo.callbacks.base import Callback, Stop
from mlo.callbacks.console import Console
from mlo.callbacks.early_stopping import EarlyStopping
from mlo.callbacks.keep_best import KeepBest
from mlo.callbacks.recorder import Recorder

__all__ = ["Callback", "Console", "EarlyStopping", "KeepBest", "Recorder", "Stop"]
