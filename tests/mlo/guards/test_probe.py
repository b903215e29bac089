"""A loss that will be evaluated again is evaluated twice at its first move, and only there."""

from __future__ import annotations

import re

import pytest
import torch

import mlo
from mlo.errors import ReplayError

from .planted import drawn, same
from .test_places import states


def sgd(params):
    return torch.optim.SGD(params, 0.1)


class Net(torch.nn.Module):
    """A number, a mask that drops some of its uses, and a count of these."""

    def __init__(self, dtype=None):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(4, dtype=dtype))
        self.drop = torch.nn.Dropout(0.5)
        self.register_buffer("uses", torch.zeros(()))

    def forward(self):
        self.uses += 1
        return self.drop(self.w)


def two(off=lambda k: 0.0, *, method=None, dtype=None, calls=None, **options):
    """The k-th evaluation of the lower loss is off by `off(k)`."""
    calls = [] if calls is None else calls

    def fit(net, top):
        calls.append(0)
        value = (net() - top["a"].to(net.w.dtype)).square().sum() + 0.5
        return value * (1.0 + off(len(calls)))

    def judge(net, top):
        return (net.w**2).sum().to(torch.float64) + top["a"] ** 2

    method = method or mlo.ConjugateGradient(damping=1.0)
    low = mlo.Problem("net", module=Net(dtype), loss=fit, optimizer=sgd, hypergradient=method)
    top = {"params": {"a": torch.tensor(0.3)}, "loss": judge, "optimizer": sgd}
    return mlo.Engine([low, mlo.Problem("top", **top)], dry_run=False, **options)


def test_a_counter_in_a_loss_is_found_before_the_step():
    engine = two(lambda k: 0.001 * k)
    before = states(engine)
    with pytest.raises(ReplayError) as caught:
        engine.step()
    assert caught.value.problem == "net"
    first, second = map(
        float, re.findall(r"is ([\d.]+) in its move, but ([\d.]+)", str(caught.value))[0]
    )
    assert second / first == pytest.approx(1.002 / 1.001, rel=1e-12)
    assert "mlo.Guards(probe=False)" in str(caught.value)
    assert same(before, states(engine)) is True
    two(lambda k: 0.001 * k, guards=mlo.Guards(probe=False)).step()


@pytest.mark.parametrize(("dtype", "least"), [(torch.float64, 1.5e-8), (torch.float32, 3.5e-4)])
def test_rounding_is_no_difference(dtype, least):
    two(lambda k: 0.9 * least * (k == 2), dtype=dtype).step()
    with pytest.raises(ReplayError):
        two(lambda k: 1.2 * least * (k == 2), dtype=dtype).step()


def test_a_loss_near_zero_may_differ_by_rounding():
    """Of 0.1 + 0.2 - 0.3 there is nothing left but rounding."""
    for off, fails in ((2e-16, False), (1e-14, True)):
        calls = []

        def fit(net, top, off=off, calls=calls):
            calls.append(0)
            return 0.0 * (net["w"] * top["a"]).sum() + off * (len(calls) == 2)

        low = {"params": {"w": torch.ones(1)}, "loss": fit, "optimizer": sgd}
        low["hypergradient"] = mlo.Dense(damping=1.0)
        top = {"params": {"a": torch.ones(1)}, "loss": lambda net: net["w"].sum(), "optimizer": sgd}
        engine = mlo.Engine([mlo.Problem("net", **low), mlo.Problem("top", **top)], dry_run=False)
        if fails:
            with pytest.raises(ReplayError):
                engine.step()
        else:
            engine.step()


def test_nothing_but_the_loss_hears_of_it_and_only_once():
    runs = []
    for probe in (True, False):
        calls = []
        engine = two(calls=calls, guards=mlo.Guards(probe=probe))
        torch.manual_seed(4)
        counts = []
        for _ in range(3):
            calls.clear()
            engine.step()
            counts.append(len(calls))
        runs.append([counts, states(engine), drawn()])
    assert runs[0][0] == [runs[1][0][0] + 1, *runs[1][0][1:]]
    assert same(runs[0][1:], runs[1][1:]) is True


@pytest.mark.parametrize("lookahead", [False, True])
@pytest.mark.parametrize("retain", [False, True])
def test_a_move_that_is_differentiated_by_its_own_graph_is_not_replayed(lookahead, retain):
    engine = two(lambda k: 0.001 * k, method=mlo.OneStep(), retain=retain, lookahead=lookahead)
    if retain:
        engine.step()
    else:
        with pytest.raises(ReplayError, match="problem 'net'"):
            engine.step()


def test_a_problem_that_nobody_differentiates_is_not_looked_at():
    two(lambda k: 0.001 * k, method=mlo.Direct()).step()
    calls = []

    def drifting(net):
        calls.append(0)
        return net().square().sum() * len(calls)

    alone = mlo.Problem("net", module=Net(), loss=drifting, optimizer=sgd)
    mlo.Engine([alone], dry_run=False).step()
    assert len(calls) == 1


def test_between_ticks_nobody_looks():
    engine = two(lambda k: 0.001 * k)
    engine.hypergradient("top")
    with pytest.raises(ReplayError):
        engine.step()


def test_a_loss_that_is_not_finite_is_the_business_of_others():
    with pytest.raises(mlo.errors.NonfiniteError, match="the loss of problem 'net' is nan"):
        two(lambda k: float("nan")).step()
