"""What the scripts share: requests on standard input, one JSON line for each on standard output.

A request is ``{"id", "problem", "method", "settings"}``; the first line of the answer has the
versions, then come ``{"id", "hypergradient" or "error", "moved", "warnings", "costs"}``.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import warnings


def serve(run, packages):
    """Answer all requests by `run(problem, method, settings)`.

    Args:
        run: returns the hypergradient as a list, and a dict with what else is known: `moved`,
            `costs`, `outcome`.
        packages: whose versions are told.
    """
    answers = _standard_output()
    versions = {name: importlib.metadata.version(name) for name in packages}
    _write(answers, {"python": platform.python_version(), **versions})
    for request in json.load(sys.stdin):
        _write(answers, {"id": request["id"], **_answer(run, request)})


def _answer(run, request):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found, more = run(request["problem"], request["method"], request["settings"])
            answer = {"hypergradient": [float(value) for value in found], **more}
        except Exception as error:  # whatever it is, it is the result
            message = _plain(error)
            answer = {"error": {"type": type(error).__name__, "message": message}}
    told = dict.fromkeys(f"{w.category.__name__}: {_plain(w.message)}" for w in caught)
    return {**answer, "warnings": list(told)}


def _plain(message):
    """The first line without what differs between machines and runs."""
    line = next(iter(str(message).strip().splitlines()), "")
    line = line.split(" (Triggered internally")[0].replace(sys.prefix, "...")
    return line if len(line) <= 240 else line[:237] + "..."


def _standard_output():
    """The real standard output; whatever a library prints goes to standard error instead."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _write(answers, value):
    answers.write(json.dumps(value) + "\n")
    answers.flush()
