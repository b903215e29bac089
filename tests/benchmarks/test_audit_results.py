"""The committed audit: complete, true to its numpy formulas, live for this library, rendered."""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import pathlib
import sys
import types

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.audit import __main__ as command
from benchmarks.audit import picture, reference, rendering, running
from benchmarks.audit.cases import Case, cases
from benchmarks.audit.claims import Rows
from benchmarks.audit.environments import LIBRARIES, InstallError
from benchmarks.audit.findings import findings
from benchmarks.audit.problems import problems
from mlo.files import json_text

RESULTS = json.loads(command.RESULTS.read_text("utf-8"))
ROWS = {row["id"]: row for row in RESULTS["rows"]}
PROBLEMS = problems()
CASES = {case.id: case for case in cases()}
OWN = [case for case in cases() if case.library == "mlo-engine"]


def numbers(row):
    return np.array([float(value) for value in row["hypergradient"]])


def test_every_case_has_one_row_and_every_row_a_case():
    assert len(CASES) == len(cases())
    assert len(ROWS) == len(RESULTS["rows"])
    assert set(ROWS) == set(CASES)


def test_every_row_is_the_answer_to_its_case():
    for name, row in ROWS.items():
        case = CASES[name]
        asked = (case.library, case.problem, case.method, case.settings, [*case.algorithm])
        told = tuple(row[k] for k in ("library", "problem", "method", "settings", "algorithm"))
        assert told == asked
        assert ("error" in row) != ("hypergradient" in row)


def test_distances_are_those_from_the_numpy_truth():
    answered = [row for row in ROWS.values() if "hypergradient" in row]
    assert len(answered) > 100
    for row in answered:
        problem, found = PROBLEMS[row["problem"]], numbers(row)
        whole = reference.distance(found, reference.solution(problem))
        own = reference.distance(found, reference.value(problem, CASES[row["id"]].algorithm))
        told = [float(row["off_solution"]), float(row["off_algorithm"])]
        np.testing.assert_allclose([whole, own], told, rtol=1e-6, atol=1e-13)


def test_all_libraries_were_installed_in_the_versions_that_are_pinned():
    assert list(RESULTS["libraries"]) == list(LIBRARIES)
    for name, library in LIBRARIES.items():
        about = RESULTS["libraries"][name]
        assert "error" not in about
        assert about["installs"] == [" ".join(call) for call in library.installs]
        wanted = [a for call in library.installs for a in call if a.startswith(f"{name}==")]
        assert wanted == [f"{name}=={about['versions'][name]}"] * (name != "mlo-engine")


def test_own_rows_are_off_their_algorithm_by_rounding_only():
    differences = {"detached", "dropout"}  # told on the page
    for case in OWN:
        if case.problem not in differences and case.problem != "nan above":
            tiny = "Adam" in str(case.settings.get("optimizer"))  # a derivative of 1e-9
            rounded = case.method in ("FiniteDifference", "Sama")  # by 1e-16 over the radius
            allowed = 1e-7 if tiny else 1e-11 if rounded else 1e-12
            assert float(ROWS[case.id]["off_algorithm"]) < allowed, case.id


def test_own_rows_are_what_this_library_answers_now():
    _, answers, last = running.ask(pathlib.Path(sys.executable), "mlo-engine", OWN)
    assert set(answers) == {case.id for case in OWN}, last
    for name, answer in answers.items():
        row = ROWS[name]
        assert "error" not in answer, (name, answer)
        size = np.linalg.norm(numbers(row))
        np.testing.assert_allclose(numbers(answer), numbers(row), rtol=1e-7, atol=1e-11 * size)
        told = ("costs", "outcomes", "warnings")
        assert {k: answer.get(k) for k in told} == {k: row.get(k) for k in told}, name
        moved = float(answer.get("moved", 0.0))
        assert moved == 0.0, name


def test_every_finding_has_been_measured_and_nothing_praised_is_wrong():
    verdicts = {(f.library, f.claim): f.verdict(Rows(RESULTS["rows"]))[1] for f in findings()}
    assert len(verdicts) == len(findings())
    good = {(f.library, f.claim) for f in findings() if f.good}
    assert all((verdict == "right") == (key in good) for key, verdict in verdicts.items())
    absent = [key for key, verdict in verdicts.items() if verdict == "not reproduced"]
    assert absent == [("boat-torch", "`ResultStore.clear()` keeps what it holds")]


def healed(row):
    """The row as if the library had answered what the algorithm of that name gives."""
    problem, algorithm = PROBLEMS[row["problem"]], CASES[row["id"]].algorithm
    found = reference.value(problem, algorithm)
    rest = {k: v for k, v in row.items() if k != "error"}
    whole = reference.distance(found, reference.solution(problem))
    gaps = {"off_solution": whole, "off_algorithm": 0.0}
    return {**rest, **gaps, "hypergradient": found.tolist(), "moved": 0.0, "warnings": ["told"]}


def test_no_failure_is_found_in_libraries_that_answer_right():
    rows = Rows([healed(row) for row in RESULTS["rows"]])
    for finding in findings():
        assert finding.verdict(rows)[1] == ("right" if finding.good else "not reproduced")


def test_praise_is_taken_back_where_answers_are_off():
    wrong = copy.deepcopy(RESULTS["rows"])
    for row in wrong:
        row["off_algorithm"] = 0.1
    for finding in findings():
        if finding.good:
            assert finding.verdict(Rows(wrong))[1] == "WRONG"


def verdicts(rows):
    return {finding.verdict(Rows(rows))[1] for finding in findings()}


def failing(kind):
    """All rows with an exception of this kind in the place of a number."""
    error = {"error": {"type": kind, "message": "m"}}
    keys = ("id", "library", "problem", "method", "settings", "algorithm")
    return [{k: row[k] for k in keys} | error for row in RESULTS["rows"]]


def test_nothing_is_found_without_rows_or_in_libraries_that_could_not_be_asked():
    assert verdicts([]) == {"not measured"}
    assert verdicts(failing("InstallError")) == {"not measured"}
    assert verdicts(failing("NoAnswer")) == {"not measured"}


def test_an_exception_of_another_kind_is_no_finding():
    assert verdicts(failing("StrangeError")) == {"not measured", "not reproduced"}


def test_the_page_is_rendered_from_the_results():
    page = command.PAGE.read_text("utf-8")
    assert rendering.page(page, RESULTS) == page
    assert len(page.split(": generated -->")) == 1 + len(rendering.parts(RESULTS))


def test_a_page_that_lacks_a_part_is_refused():
    with pytest.raises(ValueError, match="'findings'"):
        rendering.page("no parts", RESULTS)


def test_the_picture_has_a_line_for_each_library_and_is_the_same_each_time():
    pytest.importorskip("matplotlib")
    assert picture.svg(RESULTS) == picture.svg(RESULTS)
    assert command.PICTURE.read_text("utf-8").startswith("<?xml")


def test_rows_of_one_library_take_the_place_of_its_old_ones_only():
    new = {
        "libraries": {"higher": {"versions": {}}},
        "rows": [{"id": "new", "library": "higher"}],
        "seed": 0,
    }
    both = command.merged(RESULTS, new)
    kept = [row for row in RESULTS["rows"] if row["library"] != "higher"]
    assert [row for row in both["rows"] if row["library"] != "higher"] == kept
    assert [row["id"] for row in both["rows"] if row["library"] == "higher"] == ["new"]
    assert list(both["libraries"]) == list(LIBRARIES)
    order = [list(LIBRARIES).index(row["library"]) for row in both["rows"]]
    assert order == sorted(order)


def test_the_file_of_results_is_written_as_it_was_read():
    assert command.as_text(RESULTS) == command.RESULTS.read_text("utf-8")
    assert json.loads(command.as_text(RESULTS)) == json.loads(json_text(RESULTS))


def test_a_file_that_exists_is_left_alone():
    before = command.RESULTS.read_bytes()
    done = CliRunner().invoke(command.main, ["--only", "higher"])
    assert done.exit_code == 1
    assert "--replace" in done.output
    assert command.RESULTS.read_bytes() == before


def test_a_library_that_cannot_be_installed_is_told_with_its_message(monkeypatch, tmp_path):
    def refuse(name, folder):
        raise InstallError("ERROR: no matching distribution")

    monkeypatch.setattr(running, "interpreter", refuse)
    case = Case("higher", "quadratic", "SGD")
    about, rows = running.audit("higher", [case], tmp_path, lambda what: None)
    expected = {"type": "InstallError", "message": "ERROR: no matching distribution"}
    assert about["error"] == expected
    assert [row["error"] for row in rows] == [expected]


def test_a_script_that_dies_is_told_with_its_last_words(monkeypatch, tmp_path):
    monkeypatch.setattr(running, "interpreter", lambda name, folder: pathlib.Path(sys.executable))
    monkeypatch.setattr(running, "attempts", lambda name, folder: {})
    monkeypatch.setattr(running, "PEERS", tmp_path)
    (tmp_path / LIBRARIES["higher"].script).write_text("raise SystemExit('nothing works')")
    case = Case("higher", "quadratic", "SGD")
    _, rows = running.audit("higher", [case], tmp_path, lambda what: None)
    assert rows[0]["error"]["type"] == "NoAnswer"
    assert "nothing works" in rows[0]["error"]["message"]


def serving() -> types.ModuleType:
    """The module that the scripts share, which is no part of a package for them."""
    path = running.PEERS / "serving.py"
    spec = importlib.util.spec_from_file_location("serving", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_scripts_answer_exceptions_and_warnings(monkeypatch):
    module, answers = serving(), io.StringIO()

    def run(problem, method, settings):
        if method == "bad":
            raise ValueError(f"first line in {sys.prefix}\nsecond line")
        module.warnings.warn("careful", stacklevel=1)
        return [1.0, float("nan")], {"moved": 0.5}

    requests = [{"id": m, "problem": {}, "method": m, "settings": {}} for m in ("bad", "good")]
    monkeypatch.setattr(module, "_standard_output", lambda: answers)
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(requests)))
    module.serve(run, ["numpy"])
    versions, bad, good = map(json.loads, answers.getvalue().splitlines())
    assert versions["numpy"] == np.__version__
    assert bad["error"] == {"type": "ValueError", "message": "first line in ..."}
    assert good["moved"] == 0.5
    assert good["warnings"] == ["UserWarning: careful"]
    assert good["hypergradient"][0] == 1.0
