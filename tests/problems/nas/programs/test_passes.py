"""Passes through networks and operations, counted where the numbers are known."""

from __future__ import annotations

import copy
import json

import pytest
import rich.console
import torch
import torch.nn.functional as F
from torch import nn

import mlo
from mlo.benchmark import measure
from mlo.errors import ConfigurationError
from problems.nas.benchmarks.cost import NasCostConfig, benchmark
from problems.nas.cost import LEAST, Size, tick_cost
from problems.nas.passes import OperationCounter, Passes, count_passes

TINY = Size(channels=2, layers=3, nodes=1, classes=3, batch=4, side=8, encoder="small")


class Scaled(nn.Module):
    """A network with an argument that enters behind its first layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x, scale):
        return self.last(torch.tanh(self.first(x)) * scale)


def net_loss(net, top, batch):
    return F.cross_entropy(net(batch[0], top["scale"]), batch[1])


def top_loss(net, top, batch):
    return net_loss(net, top, batch)


def unused_loss(net, top, batch):
    """The network is called twice, once without need of a gradient."""
    with torch.no_grad():
        net(batch[0], top["scale"])
    return net_loss(net, top, batch)


def engine_of(method, *, loss=net_loss, lookahead=False):
    torch.manual_seed(3)
    net = Scaled()
    problems = [
        mlo.Problem(
            "net",
            module=net,
            loss=loss,
            optimizer=torch.optim.SGD(net.parameters(), 0.1, momentum=0.9),
            hypergradient=method,
        ),
        mlo.Problem(
            "top",
            params={"scale": torch.ones(4)},
            loss=top_loss,
            optimizer=lambda params: torch.optim.Adam(params, 0.1),
        ),
    ]
    draw = torch.Generator().manual_seed(0)
    data = [
        (torch.randn(5, 3, generator=draw), torch.randint(0, 2, (5,), generator=draw))
        for _ in range(4)
    ]
    guards = mlo.Guards(probe=False)
    return mlo.Engine(
        problems, {"batch": data}, lookahead=lookahead, guards=guards, dry_run=False
    ), net


# The network's move, the outer loss, and what the method takes, from its formula.
KNOWN = {
    "one-step": (mlo.OneStep(), Passes(2, 2, 0, 1)),
    "difference": (mlo.FiniteDifference(), Passes(4, 2, 2, 0)),
    "checked": (mlo.FiniteDifference(check=True), Passes(6, 2, 4, 0)),
    "forward": (mlo.FiniteDifference(scheme="forward"), Passes(3, 2, 1, 0)),
    "neumann-3": (mlo.Neumann(terms=3), Passes(3, 3, 0, 3)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_passes_of_a_method_are_those_of_its_formula(name):
    method, want = KNOWN[name]
    engine, net = engine_of(method)
    assert count_passes(engine, {"net": net}) == {"net": want}
    assert count_passes(engine, {"net": net}) == {"net": want}


def test_a_trial_move_is_one_more_pass_each_way():
    engine, net = engine_of(mlo.OneStep(), lookahead=True)
    assert count_passes(engine, {"net": net})["net"] == Passes(3, 3, 0, 1)


def test_calls_without_a_gradient_are_forward_passes_alone():
    engine, net = engine_of(mlo.OneStep(), loss=unused_loss)
    assert count_passes(engine, {"net": net})["net"] == Passes(3, 2, 0, 1)


def test_a_pass_through_two_calls_counts_for_each_and_nothing_is_left_on_the_network():
    engine, net = engine_of(mlo.OneStep())
    count_passes(engine, {"net": net, "last": net.last})
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    counted = count_passes(engine, {"net": net, "last": net.last})
    assert counted["last"] == counted["net"]


def test_a_network_without_parameters_is_refused():
    engine, _ = engine_of(mlo.OneStep())
    with pytest.raises(ConfigurationError, match="'empty' to have parameters"):
        count_passes(engine, {"empty": nn.Tanh()})
    assert engine.tick == 0


@pytest.mark.parametrize("name", KNOWN)
def test_counting_changes_no_bit(name):
    plain, _ = engine_of(KNOWN[name][0])
    counted, net = engine_of(copy.deepcopy(KNOWN[name][0]))
    for _ in range(3):
        plain.step()
        with OperationCounter():
            count_passes(counted, {"net": net})
    for problem in plain.problems:
        one, other = (e.problems[problem].module.state_dict() for e in (plain, counted))
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("transposed", [False, True])
def test_operations_of_grouped_convolutions_are_those_of_their_products(groups, transposed):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = kind(6, 12, 3, stride=2, groups=groups)
    x = torch.randn(2, 6, 9, 9, requires_grad=True)
    y = layer(x)
    # Each place of the smaller side meets 3 x 3 weights for each pair of channels in a group.
    products = 2 * 4 * 4 * 6 * 12 // groups * 9 if not transposed else 2 * 81 * 72 // groups * 9
    with OperationCounter() as counter:
        layer(x.detach())
    assert counter.count == 2 * products
    with OperationCounter() as counter:
        y.sum().backward()
    assert counter.count == 4 * products
    y = layer(x.detach())
    with OperationCounter() as counter:
        y.sum().backward()
    assert counter.count == 2 * products


AT_LEAST = list(LEAST)


@pytest.mark.parametrize(("kind", "rule", "lookahead"), AT_LEAST)
def test_both_searches_take_no_pass_more_than_the_least(kind, rule, lookahead):
    cost = tick_cost(kind, rule, lookahead=lookahead, size=TINY)
    assert cost["passes"] == cost["least"]
    assert cost["operations"] > 0


def test_differences_of_darts_take_no_pass_more_than_the_least():
    for lookahead in (False, True):
        cost = tick_cost("darts", "finite-difference", lookahead=lookahead, size=TINY)
        assert cost["passes"] == cost["least"]


def test_what_is_not_derived_is_refused():
    with pytest.raises(ConfigurationError, match="the least is derived"):
        tick_cost("lfm", "first-order", lookahead=False, size=TINY)


def test_the_benchmark_gives_plain_numbers_and_a_table(monkeypatch):
    chosen = {key: LEAST[key] for key in [("darts", "first-order", False)]}
    monkeypatch.setattr("problems.nas.benchmarks.cost.LEAST", chosen)
    config = NasCostConfig(channels=2, layers=3, nodes=1, batch=4, side=8, encoder="small")
    console = rich.console.Console(quiet=True)
    results, written = measure(benchmark, config, console)
    (tick,) = json.loads(json.dumps(written))["ticks"]
    assert tick["passes"]["network"] == {"forward": 2, "backward": 1, "partial": 1, "double": 0}
    assert results.tables[0].row_count == 1
