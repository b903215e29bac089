"""The benchmark `bilevel-quadratic`: errors and runs beside numpy, the guide beside its results."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest
import torch

import mlo
from mlo.benchmark import measure
from mlo.errors import ConfigurationError
from mlo.report.style import styled
from problems.benchmarks.bilevel_quadratic import accuracy, descent, publish, rendering
from problems.benchmarks.bilevel_quadratic.benchmark import benchmark
from problems.benchmarks.bilevel_quadratic.methods import FAMILIES, Family, up_to
from problems.benchmarks.bilevel_quadratic.problem import Spectra, draw
from problems.benchmarks.bilevel_quadratic.program import Batches
from problems.benchmarks.bilevel_quadratic.samples import Samples
from problems.benchmarks.bilevel_quadratic.spread import spread

SMALL = Spectra(mu_inner=0.05, dim_inner=7, dim_outer=5, n_samples_inner=19, n_samples_outer=23)
BY_LABEL = {family.label: family for family in FAMILIES}


def adjoint(label: str, k: int, H: np.ndarray, v: np.ndarray) -> np.ndarray:
    """What stands in the place of H^{-1} v, by matrices; the inner learning rate is 1."""
    if label == "Direct":
        return 0 * v
    if label in ("OneStep", "FiniteDifference", "Sama"):
        return v
    if label == "Dense":
        return np.linalg.solve(H, v)
    if label in ("Neumann", "Unrolled", "ForwardMode"):
        return sum(np.linalg.matrix_power(np.eye(len(v)) - H, i) @ v for i in range(k))
    # The best in the Krylov space, in the norm of H.
    space = np.linalg.qr(np.stack([np.linalg.matrix_power(H, i) @ v for i in range(k)], 1))[0]
    if label == "Minres":  # in the norm of the residual
        return space @ np.linalg.lstsq(H @ space, v, rcond=None)[0]
    return space @ np.linalg.solve(space.T @ H @ space, space.T @ v)


def expected_error(label: str, k: int, quadratic, distance: float) -> float:
    """The relative error of the hypergradient, by numpy."""
    g, f = ({n: getattr(q, n).numpy() for n in "HKCcd"} for q in (quadratic.g, quadratic.f))
    direction, x = (t.numpy() for t in quadratic.start)
    solved = -np.linalg.solve(g["H"], g["C"].T @ x + g["c"])
    z = solved + distance * np.linalg.norm(solved) * direction / np.linalg.norm(direction)
    made = z - (g["H"] @ z + g["C"].T @ x + g["c"])
    at = made if label in ("OneStep", "FiniteDifference", "Sama") else z

    def total(z, solve):
        v = f["H"] @ z + f["C"].T @ x + f["c"]
        return f["K"] @ x + f["C"] @ z + f["d"] - g["C"] @ solve(v)

    exact = total(solved, lambda v: np.linalg.solve(g["H"], v))
    found = total(at, lambda v: adjoint(label, k, g["H"], v))
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


@pytest.mark.parametrize("distance", [0.0, 0.3])
@pytest.mark.parametrize("label", ["Direct", "OneStep", "FiniteDifference", "Sama", "Dense"])
def test_errors_of_methods_without_a_knob_are_those_of_numpy(label, distance):
    quadratics = [draw(SMALL, seed) for seed in range(3)]
    found = accuracy.measure(BY_LABEL[label], 0, quadratics, distance)
    expected = [expected_error(label, 0, q, distance) for q in quadratics]
    assert found["error"]["median"] == pytest.approx(np.median(expected), rel=1e-3, abs=1e-12)


@pytest.mark.parametrize("distance", [0.0, 0.3])
@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("label", ["Neumann", "ConjugateGradient", "Minres"])
def test_errors_of_truncated_solves_are_those_of_numpy(label, k, distance):
    quadratics = [draw(SMALL, seed) for seed in range(4)]
    found = accuracy.measure(BY_LABEL[label], k, quadratics, distance)
    expected = [expected_error(label, k, q, distance) for q in quadratics]
    quartiles = np.quantile(expected, [0.25, 0.75])
    assert found["error"]["median"] == pytest.approx(np.median(expected), rel=1e-3)
    assert found["error"]["quartiles"] == pytest.approx(list(quartiles), rel=1e-3)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("label", ["Unrolled", "ForwardMode"])
def test_errors_of_updates_at_the_solution_are_those_of_a_series(label, k):
    quadratics = [draw(SMALL, seed) for seed in range(4)]
    found = accuracy.measure(BY_LABEL[label], k, quadratics, 0.0)
    expected = [expected_error(label, k, q, 0.0) for q in quadratics]
    assert found["error"]["median"] == pytest.approx(np.median(expected), rel=1e-3)


def test_errors_on_batches_are_against_the_whole():
    quadratics = [draw(SMALL, seed) for seed in range(2)]
    whole = accuracy.measure(BY_LABEL["Dense"], 0, quadratics, 0.0, batch=23)
    assert whole["error"]["median"] < 1e-10
    found = accuracy.measure(BY_LABEL["Dense"], 0, quadratics, 0.0, batch=10)
    errors = []
    for seed, quadratic in enumerate(quadratics):
        z, x = accuracy.standing(quadratic, 0.0)
        inner, outer = (
            Samples(*(t[rows] for t in dataclasses.astuple(samples))).mean()
            for k, samples in enumerate((quadratic.inner, quadratic.outer))
            for rows in [next(iter(Batches(len(samples.a), 10, generator(10 * seed + k))))]
        )
        u = torch.linalg.solve(inner.H, outer.slope_z(z, x))
        exact = quadratic.hypergradient(x)
        errors.append(float((outer.slope_x(z, x) - inner.C @ u - exact).norm() / exact.norm()))
    assert found["error"]["median"] == pytest.approx(np.mean(errors), rel=1e-3)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_a_solve_that_fails_on_a_batch_is_named_in_the_table(tiny):
    _, written = tiny  # 6 variables, and batches of 1, 2, 4, 8 and 16 samples
    rows = {row[0]: row[1:] for row in rendering.batch_rows(written)}
    assert rows["Dense"][:3] == ["singular"] * 3
    assert "singular" not in rows["Dense"][3:]
    assert list(rows)[1:5] == ["Direct", "OneStep", "FiniteDifference", "Sama"]
    assert list(rows)[5].startswith("Neumann(terms=")


def test_moves_before_the_question_are_made_and_counted():
    family = Family("moved", lambda _: mlo.Dense(), "moves", (0, 3, 200), moves=lambda k: k)
    quadratics = [draw(SMALL, seed) for seed in range(2)]
    still, some, many = (accuracy.measure(family, k, quadratics, 0.3) for k in family.values)
    assert [p["gradients"] for p in (still, some, many)] == [2, 5, 202]
    assert some["error"]["median"] < still["error"]["median"]
    assert many["error"]["median"] < 1e-4


@pytest.mark.parametrize(("label", "vectors"), [("Direct", (4, 14)), ("Dense", (100, 1000))])
def test_memory_is_counted_in_vectors(label, vectors):
    spectra = Spectra(dim_inner=100, dim_outer=100, n_samples_inner=100, n_samples_outer=100)
    found = accuracy.costs(BY_LABEL[label], 0, draw(spectra, 0), repeats=2)
    assert vectors[0] <= found["memory"] <= vectors[1]
    assert found["milliseconds"]["median"] > 0


@pytest.mark.parametrize("label", ["Direct", "OneStep", "Dense"])
def test_a_run_is_the_loop_written_by_hand(label):
    tick = {"Direct": 11, "OneStep": 13, "Dense": 28}[label]
    setup = descent.Setup(SMALL, inner_rate=0.7, batch=None, budget=6 * tick)
    found = descent.run(setup, BY_LABEL[label], rate=0.2, seed=4)
    q = draw(SMALL, 4, convex=True)
    z, x = q.start
    assert [made for made, _ in found.trace] == [k * tick for k in range(7)]
    for _, metrics in found.trace[1:]:
        for _ in range(descent.REPEAT):
            z = z - 0.7 * q.g.slope_z(z, x)
        v = q.f.slope_z(z, x)
        u = {"Direct": 0 * v, "OneStep": 0.7 * v, "Dense": torch.linalg.solve(q.g.H, v)}[label]
        x = x - 0.2 * (q.f.slope_x(z, x) - q.g.C @ u)
        own = q.metrics(z, x)
        own["gap"] = own.pop("value_func") - float(q.minimum())
        assert metrics == pytest.approx(own, rel=1e-7, abs=1e-12)


def test_metrics_are_looked_at_before_the_limit_is_exceeded():
    trace = [(made, {"value": float(made)}) for made in (0, 30, 60, 90)]
    seen = descent.Run(trace, 0).seen("value", [0, 29, 30, 50, 89, 90, 200])
    assert seen == [0, 0, 30, 30, 60, 90, 90]


def test_a_hopeless_run_ends_with_infinities():
    setup = descent.Setup(SMALL, inner_rate=1.0, batch=None, budget=10_000)
    found = descent.run(setup, BY_LABEL["Dense"], rate=50.0, seed=0)
    assert found.trace[-1][0] < 3000
    assert set(found.trace[-1][1].values()) == {math.inf}


def test_a_run_whose_solves_fail_ends_and_counts_them():
    setup = descent.Setup(SMALL, inner_rate=0.1, batch=4, budget=10_000)  # singular: NaN
    found = descent.run(setup, BY_LABEL["Dense"], rate=0.1, seed=0)
    assert found.failed == 1
    assert [set(metrics.values()) == {math.inf} for _, metrics in found.trace] == [False, True]


def test_the_rate_is_chosen_on_a_problem_that_is_not_reported(monkeypatch):
    asked = []

    def run(setup, family, rate, seed):
        asked.append((rate, seed))
        good = {0.03: 2.0, 0.3: math.inf, 1.0: math.inf}.get(rate, 5.0)
        value = good if seed == descent.TUNING else 0.01 * rate
        return descent.Run([(0, dict.fromkeys(descent.METRICS, value))], 1)

    monkeypatch.setattr(descent, "run", run)
    setup = descent.Setup(SMALL, inner_rate=1.0, batch=None, budget=20)
    found = descent.tuned(setup, BY_LABEL["Dense"], range(3), lambda: None)
    tried = [(rate, descent.TUNING) for rate in descent.RATES]
    assert asked == [*tried, (0.03, 0), (0.03, 1), (0.03, 2)]
    assert (found["rate"], found["failed_solves"]) == (0.03, 3)
    assert found["tried"]["0.3"] == math.inf


def test_spreads_of_runs_that_diverged():
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "quartiles": [1.5, 2.5]}
    assert spread([math.nan, 1.0, 2.0]) == {"median": 2.0, "quartiles": [2.0, math.inf]}
    assert spread([math.inf] * 3) == {"median": math.inf, "quartiles": [math.inf] * 2}


def test_the_work_to_a_target_is_that_after_which_the_error_stays_below():
    points = [
        {"evaluations": n, "error": {"median": e}, "milliseconds": {"median": n / 4}}
        for n, e in ((4, 1e-1), (6, 1e-4), (8, 1e-2), (10, 1e-5), (12, 1e-6))
    ]
    assert rendering._cost_to(points, 1e-3) == "10 (2.5 ms)"
    assert rendering._cost_to(points, 1.0) == "4 (1 ms)"
    assert rendering._cost_to(points, 1e-9) == "more than 12"
    assert rendering._cost_to(points[:1], 1e-9) == "-"


def test_knobs_are_turned_in_about_equal_ratios():
    assert up_to(8, 1) == (1, 2, 4, 8)
    assert up_to(16, 2) == (1, 2, 3, 4, 6, 8, 11, 16)


def keys(value):
    """The names in nested mappings and lists; of a list, those of its parts together."""
    if isinstance(value, dict):
        return {key: keys(item) for key, item in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {key: keys(item) for part in value for key, item in part.items()}
    return None


@pytest.fixture(scope="module")
def results():
    return json.loads(publish.RESULTS.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tiny():
    settings = {"size": 6, "samples": 16, "largest": 4, "budget": 30, "seeds": 2, "repeats": 2}
    return measure(benchmark, benchmark.config(**settings), console=None)


def test_the_benchmark_measures_what_the_results_of_the_repository_hold(tiny, results):
    found, written = tiny
    assert keys(written) == keys(results)
    places = [(g["condition"], g["distance"], g["method"]) for g in results["fixed_points"]]
    assert places == [(g["condition"], g["distance"], g["method"]) for g in written["fixed_points"]]
    assert [rendering.panel_name(p).split(" of ")[0] for p in written["runs"]] == [
        rendering.panel_name(p).split(" of ")[0] for p in results["runs"]
    ]
    assert len(found.tables) == 3
    dense = next(g for g in written["fixed_points"] if g["method"] == "Dense")
    assert dense["points"][0]["evaluations"] == 2 + 2 * 7
    assert dense["points"][0]["error"]["median"] < 1e-12


def test_the_results_hold_every_method_of_the_table(results):
    labels = [family.label for family in FAMILIES]
    assert list(dict.fromkeys(g["method"] for g in results["fixed_points"])) == labels
    assert all(list(panel["methods"]) == labels for panel in results["runs"])


def test_the_tables_of_the_guide_are_those_of_the_results(results):
    text = publish.GUIDE.read_text(encoding="utf-8")
    assert publish.with_tables(text, results) == text
    other = copy.deepcopy(results)
    for group in other["fixed_points"]:
        group["points"][0]["evaluations"] += 1
        group["points"][0]["error"]["median"] = 0.5
    for panel in other["runs"]:
        panel["methods"]["Direct"]["rate"] = 7.0
    assert publish.with_tables(text, other) != text


def test_a_guide_without_a_table_is_refused(results):
    text = publish.GUIDE.read_text(encoding="utf-8").replace("<!-- table: bias -->", "")
    with pytest.raises(ConfigurationError, match=r"docs/choosing\.md: expected the tables"):
        publish.with_tables(text, results)


@pytest.mark.parametrize("place", publish.PICTURES)
def test_pictures_show_every_method(place, results):
    assert (pathlib.Path(publish.ROOT) / place).is_file()
    assert pathlib.Path(place).name in publish.GUIDE.read_text(encoding="utf-8")
    with styled():
        figure = publish.PICTURES[place](results)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [family.label for family in FAMILIES]
    assert len(figure.axes) == (6 if "error" in place else 9)


def reached(results, condition: int, method: str, target: float) -> int:
    """Products until the error was, and stayed, below a target."""
    groups = [g for g in results["fixed_points"] if g["distance"] == 0]
    cell = rendering._cost_to(rendering._points(groups, condition, method), target)
    return (int(cell.split(" ")[0]) - 2) // 2


def least(results, condition: int, method: str, distance: float) -> float:
    points = rendering._points(results["fixed_points"], condition, method, distance)
    return min(p["error"]["median"] for p in points)


def test_work_grows_as_the_guide_says(results):
    for condition in (10, 100, 1000):
        for target, factor in ((1e-3, 3), (1e-6, 6)):
            iterations = reached(results, condition, "ConjugateGradient", target) - 1
            assert 0.75 < iterations / (factor * math.sqrt(condition)) < 1.25
    for condition in (10, 100):
        assert 0.75 < reached(results, condition, "Neumann", 1e-3) / (7 * condition) < 1.25
    dense, cg = (reached(results, 1000, name, 1e-6) for name in ("Dense", "ConjugateGradient"))
    assert dense < cg
    assert reached(results, 1000, "ConjugateGradient", 1e-3) < dense


def test_what_no_work_removes_is_what_the_guide_says(results):
    for condition in (10, 100, 1000):
        floor = least(results, condition, "Dense", 0.01)
        assert 1e-3 < floor < 1e-2
        assert least(results, condition, "ConjugateGradient", 0.01) > 0.9 * floor
        points = rendering._points(results["fixed_points"], condition, "ConjugateGradient", 0.01)
        enough = next(p for p in points if p["error"]["median"] < 1.1 * floor)
        assert 8 <= enough["value"] <= 64
        direct, step, difference = (
            least(results, condition, name, 0.0)
            for name in ("Direct", "OneStep", "FiniteDifference")
        )
        assert 0.8 * direct < step < direct
        assert difference == pytest.approx(step, rel=1e-3)


def test_memory_is_what_the_guide_says(results):
    for method in ("Neumann", "ConjugateGradient"):
        points = rendering._points(results["fixed_points"], 1000, method)
        assert max(p["memory"] for p in points if p["value"] > 1) < 1.1 * points[2]["memory"]
    assert rendering._points(results["fixed_points"], 1000, "Dense")[0]["memory"] > 200


def test_runs_and_batches_end_as_the_guide_says(results):
    tenth, hundredth, batches = results["runs"]
    for panel in (tenth, hundredth):
        ends = {name: run["value"]["median"][-1] for name, run in panel["methods"].items()}
        assert ends["ConjugateGradient"] < 0.1 * min(
            ends[name] for name in ("Direct", "OneStep", "FiniteDifference", "Neumann", "Dense")
        )
    ends = {name: run["value"]["median"][-1] for name, run in batches["methods"].items()}
    assert 0.3 < ends["Neumann"] / ends["ConjugateGradient"] < 3
    found = {(p["method"], p["batch"]): p for p in results["batches"]}
    assert found["Dense", 64]["outcome"] == "singular"
    assert found["ConjugateGradient", 64]["outcome"] == "diverged"
    assert found["ConjugateGradient", 64]["error"]["median"] > 10
    for size in (128, 256, 512):
        short, exact = (found[name, size]["error"]["median"] for name in ("Neumann", "Dense"))
        assert short < 1.1 * exact


def test_updates_and_tangents_are_what_the_guide_says(results):
    for condition in (10, 100, 1000):
        solved, off = (least(results, condition, "Unrolled", at) for at in (0.0, 0.01))
        assert off == pytest.approx(solved, rel=0.1, abs=1e-13)
        minres, cg = (
            reached(results, condition, name, 1e-6) for name in ("Minres", "ConjugateGradient")
        )
        assert minres == pytest.approx(cg, rel=0.1)
    short, long = (
        next(
            p
            for p in rendering._points(results["fixed_points"], 1000, "Unrolled")
            if p["value"] == k
        )
        for k in (64, 128)
    )
    assert 1.5 < (long["memory"] - short["memory"]) / 64 < 2.5
    for panel in results["runs"]:
        assert panel["methods"]["ForwardMode"]["ticks"] == 0
    for panel in results["runs"][:2]:
        ends = {name: run["value"]["median"][-1] for name, run in panel["methods"].items()}
        assert 0.5 < ends["Unrolled"] / ends["Neumann"] < 2
