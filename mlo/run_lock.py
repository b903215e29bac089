"""A run folder is written to by one process; its lock goes with the process, however it ends."""

from __future__ import annotations

import pathlib

import filelock

from mlo.errors import RunFolderError

LOCK = ".lock"
"""The name of the file of the lock; it stays when the lock is gone."""

_PATIENCE = 0.5
"""Seconds after which a lock counts as taken: whoever looks at one has it for an instant only."""

_GLANCE = 0.1
"""The same for those who only look."""


def locked(path: pathlib.Path) -> filelock.BaseFileLock:
    """Take the lock of a run folder.

    Raises:
        RunFolderError: another process holds it, or the folder cannot be written to.
    """
    lock = _lock(path)
    try:
        lock.acquire(timeout=_PATIENCE)
    except filelock.Timeout as error:
        raise RunFolderError(
            f"run folder: another process is writing to '{path}'; wait for it, or stop it first"
        ) from error
    except OSError as error:
        raise RunFolderError(
            f"run folder: cannot write to '{path}': {error.strerror}; "
            "choose a folder that can be written to"
        ) from error
    return lock


def in_use(path: pathlib.Path) -> bool:
    """Whether a process on this machine is writing to the run folder; nothing is made in it."""
    if not (path / LOCK).exists():
        return False
    lock = _lock(path)
    try:
        lock.acquire(timeout=_GLANCE)
    except filelock.Timeout:
        return True
    except OSError:  # a folder that only lets itself be read
        return False
    lock.release()
    return False


def _lock(path: pathlib.Path) -> filelock.BaseFileLock:
    # Whichever thread ends a run gives its lock back.
    return filelock.FileLock(path / LOCK, thread_local=False, poll_interval=0.01)
