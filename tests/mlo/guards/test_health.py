"""Losses that grow and solves that fail, beside closed forms; and what is said of them."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import rich.console
import torch

import mlo
from mlo.errors import SolveError
from mlo.files import json_text
from mlo.health import Growth, Health
from mlo.plain import check_plain
from mlo.records import Outcome


def grown(losses):
    """The formula of `Growth`, by sums over all losses."""
    losses, keep = np.asarray(losses, dtype=np.float64), 1 - 1 / 20
    means = []
    for k in range(1, len(losses) + 1):
        weights = keep ** np.arange(k - 1, -1, -1.0)
        means.append(weights @ losses[:k] / weights.sum())
    best = np.minimum.accumulate(means)
    scale = np.maximum(np.abs(means[0]), np.abs(best))
    return (means - best) / np.where(scale > 0, scale, np.inf)


def test_growth_is_its_formula():
    draw = np.random.default_rng(3)
    for losses in (draw.normal(size=60), -(2.0 ** np.arange(10)), np.zeros(5), [0.0, 1.0]):
        growth = Growth()
        found = [growth.add(float(x)) for x in losses]
        assert found == pytest.approx(list(grown(losses)), rel=1e-12, abs=1e-15)
        assert growth.worst == max(found)


def bowl(rate, *, curvature=1.0, method=None, **options):
    """0.5 c |w|^2 by gradient descent: w <- (1 - rate c) w; a number above that does not matter."""

    def fit(net, top):
        return 0.5 * curvature * net["w"].square().sum() + 0.0 * top["a"] * net["w"].sum()

    net = mlo.Problem(
        "net",
        params={"w": torch.tensor([1.0, 2.0])},
        loss=fit,
        optimizer=lambda p: torch.optim.SGD(p, rate),
        hypergradient=method or mlo.OneStep(),
    )
    top = mlo.Problem(
        "top",
        params={"a": torch.tensor(0.5)},
        loss=lambda net, top: net["w"].square().sum() + top["a"] ** 2,
        optimizer=lambda p: torch.optim.SGD(p, 0.1),
    )
    return mlo.Engine([net, top], guards=mlo.Guards(**options))


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("rate", [2.1, 2.5, 3.0])
def test_gradient_descent_at_too_large_a_rate_diverges_when_it_should(rate, deferred):
    losses = 2.5 * (1 - rate) ** (2.0 * np.arange(200))
    growth = grown(losses)
    tick = int(np.argmax(growth > 50.0))
    engine = bowl(rate, max_divergence=50.0)
    engine._guard.deferred = deferred
    with pytest.raises(
        SolveError, match=rf"tick {tick}: problem 'net' diverges: .* allows 50;"
    ) as e:
        engine.run(200)
    assert e.value.problem == "net"
    assert engine.tick == tick + 1
    assert engine._health.summary()["net"].growth == pytest.approx(growth[tick], rel=1e-12)
    free = bowl(rate).run(tick + 1)
    assert free.health["net"].growth == pytest.approx(growth[tick], rel=1e-12)
    assert free.health["top"].growth is None


def test_descent_that_converges_does_not_grow():
    found = bowl(0.5, max_divergence=1e-3).run(50).health["net"]
    assert (found.growth, found.moves, found.notes) == (0.0, 50, ())


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("most", [1, 3])
def test_a_series_that_diverges_fails_as_often_as_it_is_asked(most, deferred):
    """The series in (1 - alpha c) = -2 grows."""
    method = mlo.Neumann(terms=10, alpha=1.0)
    engine = bowl(0.1, curvature=3.0, method=method, max_failed_solves=most)
    engine._guard.deferred = deferred
    with pytest.raises(
        SolveError, match=rf"tick {most - 1}: {most} responses of problem 'net'"
    ) as e:
        engine.run(10)
    assert e.value.problem == "net"
    assert engine.tick == most
    result = bowl(0.1, curvature=3.0, method=method).run(10)
    assert result.health["net"].outcomes == {Outcome.DIVERGED: 10}
    assert result.health["net"].notes == ("10 of 10 responses of net failed (10 diverged)",)
    assert result.health["top"].outcomes == {}


def test_a_solve_that_does_well_ends_the_row():
    curvatures = [3.0, 3.0, 1.0, 3.0, 3.0, 1.0, 3.0, 3.0, 3.0]

    def fit(net, top, c):
        return 0.5 * c * net["w"].square().sum() + top["a"] * net["w"].sum()

    def engine(most):
        one = {"optimizer": lambda p: torch.optim.SGD(p, 0.01), "params": {"w": torch.ones(2)}}
        method = mlo.Neumann(terms=10, alpha=1.0)
        net = mlo.Problem("net", loss=fit, hypergradient=method, **one)
        one["params"] = {"a": torch.tensor(0.5)}
        top = mlo.Problem("top", loss=lambda net: net["w"].sum(), **one)
        data = {"c": [torch.tensor(c) for c in curvatures]}
        return mlo.Engine([net, top], data, guards=mlo.Guards(max_failed_solves=most))

    with pytest.raises(SolveError, match="tick 8: 3 responses"):
        engine(3).run(9)
    result = engine(None).run(9)
    assert result.health["net"].outcomes == {Outcome.CONVERGED: 2, Outcome.DIVERGED: 7}
    assert result.health["net"].failures == 7


def test_the_state_is_plain_and_goes_on_where_it_was():
    engine = bowl(2.5, curvature=1.0, method=mlo.Neumann(terms=10, alpha=3.0), max_divergence=1e9)
    engine.run(5)
    state = engine._health.state_dict()
    check_plain(state, "health")
    state = json.loads(json.dumps(state))
    other = Health(("net", "top"), {"net"}, mlo.Guards())
    other.load_state_dict(state)
    assert other.summary() == engine._health.summary()
    assert other.state_dict() == engine._health.state_dict()
    engine.run(5)
    assert other.summary() != engine._health.summary()


def test_the_end_record_has_it_as_plain_numbers():
    plain = bowl(2.5, curvature=1.0, method=mlo.Neumann(terms=10, alpha=3.0)).run(5).plain()
    assert json.loads(json_text(plain)) == plain
    assert plain["health"]["net"]["outcomes"] == {"diverged": 5}
    assert plain["health"]["top"] == {"moves": 5, "outcomes": {}, "growth": None, "taken_back": 0}


@pytest.mark.parametrize("terminal", [False, True])
def test_people_are_told_at_the_end_and_only_of_what_went_wrong(terminal):
    def shown(engine, ticks):
        console = rich.console.Console(
            record=True, width=100, force_terminal=terminal, file=io.StringIO()
        )
        engine.run(ticks, callbacks=[mlo.callbacks.Console("job", console=console)])
        return " ".join(console.export_text().split())

    text = shown(bowl(2.5, method=mlo.Neumann(terms=10, alpha=3.0)), 20)
    assert "job: 20 of 20 responses of net failed (20 diverged)" in text
    assert "job: the loss of net rose above its best by" in text
    quiet = shown(bowl(0.5), 20)
    assert quiet.endswith("job: all 20 ticks were made")
