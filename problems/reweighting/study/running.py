"""Many runs side by side in processes; what is over is kept in a file and not run again."""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import json
import multiprocessing
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import mlo
import problems
from mlo.errors import DataError
from mlo.files import writing
from problems.reweighting.study.trial import run_trial


@functools.lru_cache(maxsize=1)
def code_digest() -> str:
    """A part of the SHA-256 of all Python files of the engine and of the problem libraries."""
    found = hashlib.sha256()
    for package in (mlo, problems):
        root = pathlib.Path(package.__path__[0])
        for file in sorted(root.rglob("*.py")):
            found.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return found.hexdigest()[:16]


class Trial(NamedTuple):
    """A run: all settings of the recipe, and a seed."""

    settings: Mapping[str, Any]
    seed: int

    @property
    def key(self) -> str:
        """The same for the same run, in every process."""
        return json.dumps([self.settings, self.seed], sort_keys=True)


class Kept:
    """Results of runs in a file of JSON lines, so that a study that was cut off goes on.

    Args:
        path: the file; None keeps them in memory only.

    Raises:
        DataError: the file is there and cannot be read.
    """

    def __init__(self, path: pathlib.Path | None) -> None:
        self.path = path
        self.found: dict[str, dict[str, Any]] = {}
        if path is None:
            return
        with writing(path):
            path.touch()
            text = path.read_text(encoding="utf-8", errors="replace")
            whole, _, cut_off = text.rpartition("\n")
            if cut_off:  # by a kill: that run is made again
                path.write_text(whole + "\n" if whole else "", encoding="utf-8")
        for line in whole.splitlines():
            self._read(line)

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
            key, result, code = entry["key"], entry["result"], entry["code"]
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"kept: '{self.path}': expected a line of JSON for each run, found {line[:60]!r}; "
                "delete the line, or name another file"
            ) from error
        if code != code_digest():
            raise DataError(
                f"kept: '{self.path}' holds runs of other code ({code}, this is {code_digest()}); "
                "name another file"
            )
        self.found[key] = result

    def add(self, trial: Trial, result: dict[str, Any]) -> None:
        """Keep a result.

        Raises:
            RunFolderError: it cannot be written.
        """
        self.found[trial.key] = result
        if self.path is None:
            return
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            line = {"key": trial.key, "code": code_digest(), "result": result}
            file.write(json.dumps(line) + "\n")


def run_all(
    trials: Sequence[Trial], kept: Kept, *, workers: int, done: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    """Run those that are not kept, and give the results of all, in order.

    Args:
        trials: the runs.
        kept: those that are over.
        workers: processes.
        done: called once for each run.
    """
    missing = {trial.key: trial for trial in trials if trial.key not in kept.found}
    for _ in range(len(trials) - len(missing)):
        done()
    # New interpreters: a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting = {pool.submit(run_trial, *trial): trial for trial in missing.values()}
        try:
            for future in concurrent.futures.as_completed(waiting):
                kept.add(waiting[future], future.result())
                done()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return iter([kept.found[trial.key] for trial in trials])
