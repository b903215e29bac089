"""What watches a run: progress, records in files, early stopping, best weights."""

from __future__ import annotations

from mlo.callbacks.base import Callback, Stop
from mlo.callbacks.console import Console
from mlo.callbacks.early_stopping import EarlyStopping
from mlo.callbacks.keep_best import KeepBest
from mlo.callbacks.recorder import Recorder
from mlo.callbacks.tensorboard import TensorBoard

__all__ = ["Callback", "Console", "EarlyStopping", "KeepBest", "Recorder", "Stop", "TensorBoard"]
