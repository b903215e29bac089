"""A folder with the newest checkpoints of a run, the older of which stand in for a damaged one.

::

    tick-0000000200.pt   the newest checkpoint
    tick-0000000100.pt   the one before
    manifest.json        which there are, with their checksums

The files alone say what is true: the newest is the whole one of the highest tick. The manifest
helps people, and finds files that are gone or were exchanged.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from mlo.checkpoint_file import Written, load_verified, open_verified, write_checkpoint
from mlo.errors import CheckpointError
from mlo.files import final_name, json_text, make_folder, replacing, writing

MANIFEST = "manifest.json"
"""The name of the manifest."""

_NAME = re.compile(r"tick-(\d{10,18})\.pt", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Found:
    """The newest whole checkpoint of a folder.

    Attributes:
        path: its file.
        tick: the tick after which it was written.
        state: what it holds.
        damaged: a sentence about everything that was passed over.
    """

    path: pathlib.Path
    tick: int
    state: dict[str, Any]
    damaged: tuple[str, ...]


class CheckpointFolder:
    """Writes checkpoints, keeps the newest, and finds the newest that is whole.

    One process writes to a folder at a time.

    Args:
        path: the folder; made when something is written.
        keep: how many checkpoints stay. During a write there is one more.

    Raises:
        CheckpointError: none is to be kept.
    """

    def __init__(self, path: str | os.PathLike[str], *, keep: int = 2) -> None:
        if keep < 1:
            raise CheckpointError(f"checkpoints: keep={keep}, expected at least 1")
        self.path = pathlib.Path(path)
        self.keep = keep
        self._damaged: set[str] = set()

    def write(self, state: Mapping[str, Any], tick: int) -> Written:
        """Write the checkpoint of a tick, then remove what it makes needless.

        That are the oldest beyond `keep`, those that `newest` has found damaged, those of later
        ticks, which belong to a future that is made again, and what a killed writer has left.
        Wherever the process is killed, `newest` finds this checkpoint or the one before.

        Raises:
            CheckpointError: it cannot be written; the last checkpoint is intact.
        """
        if tick < 0:
            raise CheckpointError(f"checkpoint: tick {tick}, expected 0 or later")
        path = self.path / f"tick-{tick:010}.pt"
        with writing(self.path, CheckpointError):
            make_folder(self.path)
            self._sweep()
        entries, _ = self._manifest()
        if entries.pop(path.name, None):  # whose checksum is about to be that of another file
            self._write_manifest(entries)
        written = write_checkpoint(path, state)
        self._damaged |= {n for n in self._names() if _tick(n) > tick}
        self._write_manifest({})
        # Those of later ticks go first. Killed before the last is gone, it is as if this one had
        # not been written; killed after that, this one is the newest, on the manifest or not.
        # Writing the manifest syncs the folder.
        there = self._names()
        self._damaged.discard(path.name)
        stale = {name for name in there if _tick(name) > tick} | self._damaged
        self._remove(stale)
        kept = [name for name in there if name not in stale][: self.keep]
        entries[path.name] = _entry(written, tick)
        self._write_manifest({name: entries[name] for name in kept if name in entries})
        self._remove(set(there) - set(kept))
        return written

    def newest(self, *, map_location: Any = None) -> Found | None:
        """The newest whole checkpoint, read; None where there never was one.

        Args:
            map_location: where tensors go, as for `torch.load`.

        Raises:
            CheckpointError: all are damaged, or the newest is whole but cannot be loaded.
        """
        there = self._names()
        entries, trouble = self._manifest()
        passed = [trouble] if trouble else []
        for name in sorted({*there, *entries}, key=_tick, reverse=True):
            path = self.path / name
            if name not in there:
                passed.append(f"checkpoint: '{path}' is gone, which the manifest names")
                continue
            try:
                file, digest = open_verified(path)
            except CheckpointError as error:
                passed.append(str(error))
                self._damaged.add(name)
                continue
            with file:
                if name not in entries or entries[name]["digest"] == digest:
                    state = load_verified(file, path, map_location)
                    return Found(path, _tick(name), state, tuple(passed))
            passed.append(f"checkpoint: '{path}' is whole, but not the file of the manifest")
            self._damaged.add(name)
        if not passed:
            return None
        raise CheckpointError(
            f"checkpoints: none in '{self.path}' can be used. {'; '.join(passed)}. Put a copy of "
            "one there, or remove the folder and begin anew"
        )

    def _names(self) -> list[str]:
        """The names of the checkpoints that are there, newest first."""
        try:
            names = [name for name in os.listdir(self.path) if _NAME.fullmatch(name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(
                f"checkpoints: cannot look into '{self.path}': {error.strerror}; give a folder "
                "that checkpoints were written to"
            ) from error
        return sorted(names, key=_tick, reverse=True)

    def _sweep(self) -> None:
        """Remove what killed writers have left; there is no other writer."""
        for name in os.listdir(self.path):
            final = final_name(name)
            if final and (final == MANIFEST or _NAME.fullmatch(final)):
                (self.path / name).unlink()

    def _remove(self, names: set[str]) -> None:
        with writing(self.path, CheckpointError):
            for name in sorted(names, key=_tick):
                (self.path / name).unlink(missing_ok=True)

    def _manifest(self) -> tuple[dict[str, dict[str, Any]], str | None]:
        """{name: entry}, and what is wrong with the manifest."""
        path = self.path / MANIFEST
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["checkpoints"]
            return {_checked(entry)["file"]: entry for entry in found}, None
        except FileNotFoundError:
            if not self._names():
                return {}, None
            reason = "is gone"
        # Damage can surface in many ways: not JSON, or JSON of another shape.
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            reason = f"is damaged ({type(error).__name__}: {error})"
        return {}, f"checkpoints: '{path}' {reason}; the files that are there were looked at"

    def _write_manifest(self, entries: Mapping[str, dict[str, Any]]) -> None:
        newest_first = sorted(entries.values(), key=lambda e: _tick(e["file"]), reverse=True)
        text = json_text({"checkpoints": newest_first}, indent=2) + "\n"
        path = self.path / MANIFEST
        with writing(path, CheckpointError), replacing(path) as file:
            file.write(text.encode())


def _tick(name: str) -> int:
    return int(name.removeprefix("tick-").removesuffix(".pt"))


def _entry(written: Written, tick: int) -> dict[str, Any]:
    return {
        "file": written.path.name,
        "tick": tick,
        "bytes": written.bytes,
        "digest": written.digest,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _checked(entry: dict[str, Any]) -> dict[str, Any]:
    if not _NAME.fullmatch(entry["file"]) or not isinstance(entry["digest"], str):
        raise ValueError(f"an entry of another kind: {entry}")
    return entry
