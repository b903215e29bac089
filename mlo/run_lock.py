"""A run folder is written to by one process; its lock goes with the process, however it ends."""

from __future__ import annotations

import pathlib

import filelock

from mlo.errors import RunFolderError


def locked(path: pathlib.Path) -> filelock.BaseFileLock:
    """Take the lock of a run folder.

    Raises:
        RunFolderError: another process holds it, or the folder cannot be written to.
    """
    lock = filelock.FileLock(path / ".lock")
    try:
        lock.acquire(blocking=False)
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
    """Whether a process on this machine is writing to the run folder."""
    lock = filelock.FileLock(path / ".lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return True
    except OSError:  # a folder that only lets itself be read
        return False
    lock.release()
    return False
