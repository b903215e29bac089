"""Asking the libraries, and judging what they answer."""

from __future__ import annotations

import json
import pathlib
import platform
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.audit import reference
from benchmarks.audit.cases import Case
from benchmarks.audit.environments import LIBRARIES, InstallError, attempts, interpreter
from benchmarks.audit.problems import problems

PEERS = pathlib.Path(__file__).parent / "peers"
LIMIT = 900
"""Seconds for all cases of one library."""

Plain = dict[str, Any]


def audit(
    library: str, cases: Sequence[Case], folder: pathlib.Path, tell: Callable[[str], None]
) -> tuple[Plain, list[Plain]]:
    """What the library is, and a judged row for each of its cases.

    Args:
        library: its name in `LIBRARIES`.
        cases: of this library.
        folder: where environments are.
        tell: is handed what is being done.
    """
    try:
        tell("installing")
        python = interpreter(library, folder)
    except InstallError as error:
        failed = {"error": {"type": "InstallError", "message": str(error)}}
        return {"versions": {}, **failed}, [_row(case, failed) for case in cases]
    tell(f"{len(cases)} cases")
    versions, answers, last = ask(python, library, cases)
    silent = {"error": {"type": "NoAnswer", "message": f"the process ended: {last}"}}
    rows = [_row(case, answers.get(case.id, silent)) for case in cases]
    arguments = [" ".join(call) for call in LIBRARIES[library].installs]
    tried = attempts(library, folder)
    about = {"versions": versions, "installs": arguments, "attempts": tried}
    return {**about, "machine": platform.platform()}, rows


def ask(
    python: pathlib.Path, library: str, cases: Sequence[Case]
) -> tuple[Plain, dict[str, Plain], str]:
    """Run the library's script; returns versions, answers by id, and its last words."""
    data = problems()
    requests = [
        {"id": c.id, "problem": data[c.problem], "method": c.method, "settings": c.settings}
        for c in cases
    ]
    done = subprocess.run(
        [python, PEERS / LIBRARIES[library].script],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    versions, *answers = lines or [{}]
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return versions, {answer.pop("id"): answer for answer in answers}, last


def _row(case: Case, answer: Plain) -> Plain:
    """The answer beside the two values that it is compared with."""
    problem = problems()[case.problem]
    row = {
        "id": case.id,
        "library": case.library,
        "problem": case.problem,
        "method": case.method,
        "settings": case.settings,
        "algorithm": list(case.algorithm),
        **answer,
    }
    if "hypergradient" in answer:
        found = np.array(answer["hypergradient"])
        row["off_solution"] = reference.distance(found, reference.solution(problem))
        row["off_algorithm"] = reference.distance(found, reference.value(problem, case.algorithm))
    return row
