"""Problems that begin anew: when they do, what a hypergradient leaves, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import mlo
from mlo.errors import (
    ClosureError,
    DeclarationError,
    EvaluationError,
    GraphError,
    MethodError,
    ReadError,
)

from .oracles import gradient

LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True], ids=["after moves", "look-ahead"])
ETA = 0.1
CLOSE = {"rtol": 1e-11, "atol": 1e-11}  # the rounding of a few ticks


def sgd(params):
    return torch.optim.SGD(params, ETA)


def params_of(problem):
    return {k: p.detach().clone() for k, p in problem.module.named_parameters()}


def bowl(seed):
    """A strongly convex loss of three numbers that is no quadratic."""
    draw = torch.Generator().manual_seed(seed)
    half, offset = torch.randn(3, 3, generator=draw), torch.randn(3, generator=draw)
    curvature = torch.eye(3) + 0.3 * half @ half.T
    return lambda w: 0.5 * w @ curvature @ w - w @ offset + 0.1 * (w**4).sum()


def problem(name, loss, value=None, **settings):
    value = torch.tensor([0.5, -0.3, 0.8]) if value is None else value
    return mlo.Problem(name, **{"params": {"w": value}, "loss": loss, "optimizer": sgd, **settings})


def from_meta(meta):
    return {"w": meta["w"]}


OPTIMIZERS = {
    "SGD": lambda params: torch.optim.SGD(params, 0.1, momentum=0.9, weight_decay=0.01),
    "Adam": lambda params: torch.optim.Adam(params, 0.05),
    "Adagrad": lambda params: torch.optim.Adagrad(params, 0.05, initial_accumulator_value=0.1),
    "RMSprop": lambda params: torch.optim.RMSprop(params, 0.05, momentum=0.5),
    "LBFGS": lambda params: torch.optim.LBFGS(params, 0.3, max_iter=3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("restart", [1, 2, 3])
def test_every_nth_move_begins_anew_with_a_new_optimizer_and_an_old_rate(name, restart):
    task, make = bowl(1), OPTIMIZERS[name]
    net = problem(
        "net",
        lambda net: task(net["w"]),
        start=lambda tick: {"w": torch.full((3,), 1.0 + tick)},
        restart=restart,
        repeat=2,
        optimizer=make,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5),
    )
    engine = mlo.Engine([net])
    w = nn.Parameter(params_of(net)["w"])
    rate = make([w]).param_groups[0]["lr"]
    for tick in range(8):
        if tick % restart == 0:
            w.data.fill_(1.0 + tick)
            optimizer = make([w])
        optimizer.param_groups[0]["lr"] = rate * 0.5 ** (tick // 2)

        def closure(optimizer=optimizer):
            optimizer.zero_grad()
            loss = task(w)
            loss.backward()
            return loss

        for _ in range(2):
            optimizer.step(closure)
        engine.step()
        torch.testing.assert_close(params_of(net)["w"], w.detach(), rtol=0, atol=0)


def test_a_start_is_handed_the_first_batch_of_its_move():
    seen = []

    def begun(data):
        seen.append(("start", data))
        return {"w": torch.zeros(3)}

    def loss(net, data):
        seen.append(("loss", data))
        return net["w"].square().sum()

    net = problem("net", loss, start=begun, restart=2, repeat=2, accumulate=2)
    engine = mlo.Engine([net], {"data": range(100)}, dry_run=False)
    for _ in range(3):
        engine.step()
    losses = [("loss", n) for n in range(12)]
    assert seen == [("start", 0), *losses[:8], ("start", 8), *losses[8:]]


@pytest.mark.parametrize("restart", [1, 2])
@LOOKAHEAD
def test_nothing_moves_when_a_hypergradient_begins_anew(restart, lookahead):
    def begun(net, meta):
        return {"w": meta["w"] * torch.rand(3) + net["w"]}

    net = problem(
        "net",
        lambda net, meta: bowl(1)(net["w"] - meta["w"]),
        start=begun,
        restart=restart,
        hypergradient=mlo.OneStep() if restart == 1 else mlo.ConjugateGradient(),
        optimizer=lambda params: torch.optim.Adam(params, 0.1),
    )
    engine = mlo.Engine([net, problem("meta", lambda net: bowl(2)(net["w"]))], lookahead=lookahead)
    for _ in range(3):
        state = copy.deepcopy(net.optimizer.state_dict())
        at, random = [params_of(p) for p in engine.problems.values()], torch.get_rng_state()
        first = engine.hypergradient("meta")
        torch.testing.assert_close(engine.hypergradient("meta"), first, rtol=0, atol=0)
        assert torch.equal(torch.get_rng_state(), random)
        now = [params_of(p) for p in engine.problems.values()]
        torch.testing.assert_close(now, at, rtol=0, atol=0)
        torch.testing.assert_close(net.optimizer.state_dict(), state, rtol=0, atol=0)
        engine.step()


def pair(*, reads_meta=True, **settings):
    def alone(net):
        return bowl(1)(net["w"])

    def both(net, meta):
        return bowl(1)(net["w"] - meta["w"])

    settings = {"start": from_meta, **settings}
    net = problem("net", both if reads_meta else alone, **settings)
    return [net, problem("meta", lambda net: bowl(2)(net["w"]))]


@pytest.mark.parametrize("method", [mlo.OneStep(), mlo.FiniteDifference()])
@pytest.mark.parametrize("settings", [{"repeat": 2}, {"restart": 2}], ids=["repeat", "restart"])
@pytest.mark.parametrize("reads_meta", [False, True])
def test_a_route_through_a_start_that_the_last_update_has_not_is_refused(
    method, settings, reads_meta
):
    with pytest.raises(MethodError, match=r"'net': its start reads 'meta'.*repeat=1 and restart=1"):
        mlo.Engine(pair(reads_meta=reads_meta, hypergradient=method, **settings))


def test_the_same_through_a_problem_between_is_refused():
    low = problem("low", lambda low, meta: bowl(1)(low["w"] - meta["w"]))
    net = problem("net", lambda net: bowl(2)(net["w"]), start=lambda low: {"w": low["w"]}, repeat=2)
    top = problem("meta", lambda net: bowl(3)(net["w"]))
    with pytest.raises(MethodError, match="'net': its start reads 'low'"):
        mlo.Engine([low, net, top])


@pytest.mark.parametrize("settings", [{"repeat": 2}, {"restart": 2}], ids=["repeat", "restart"])
def test_a_route_that_is_cut_is_not_refused(settings):
    top = problem("meta", lambda meta, net: bowl(2)(net["w"] + meta["w"]))
    net = pair(reads_meta=False, constant=("meta",), **settings)[0]
    engine = mlo.Engine([net, top])
    w, x = params_of(net)["w"], params_of(top)["w"].requires_grad_()
    want = gradient(bowl(2)(w + x), x, graph=False)
    torch.testing.assert_close(engine.hypergradient("meta")["w"], want, **CLOSE)


@pytest.mark.parametrize("method", [mlo.ConjugateGradient(), mlo.Neumann(), mlo.Dense()])
def test_a_solution_does_not_depend_on_its_start(method):
    with pytest.raises(GraphError, match=r"start of 'net' reads it.*OneStep\(\).*implicit MAML"):
        mlo.Engine(pair(reads_meta=False, hypergradient=method))


WRONG = {
    "nothing": (lambda meta: None, "NoneType"),
    "a tensor": (lambda meta: meta["w"], "Tensor"),
    "a name left out": (lambda meta: {}, "missing: 'w'"),
    "a name too many": (lambda meta: {"w": meta["w"], "v": meta["w"]}, "unknown: 'v'"),
    "another shape": (lambda meta: {"w": meta["w"][:2]}, r"shape \(3,\), got \(2,\)"),
    "a number": (lambda meta: {"w": 1.0}, "got float"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_start_that_returns_something_else_is_told_so(name, dry_run):
    start, message = WRONG[name]
    with pytest.raises(EvaluationError, match=f"problem 'net': start= must return.*{message}"):
        mlo.Engine(pair(start=start), dry_run=dry_run).step()


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_start_that_uses_a_module_from_outside_is_told_so(dry_run):
    problems = pair()
    outside = problems[1].module

    net = pair(start=lambda: {"w": outside["w"] * 1})[0]
    with pytest.raises(ClosureError, match=r"'net'.*parameter 'w' of problem 'meta'"):
        mlo.Engine([net, problems[1]], dry_run=dry_run).step()


def test_declarations_of_a_start_that_cannot_work_are_refused():
    with pytest.raises(DeclarationError, match=r"restart=2 says when.*start= is None"):
        pair(start=None, restart=2)
    with pytest.raises(DeclarationError, match="restart= must be a whole number of at least 1"):
        pair(restart=0)
    with pytest.raises(DeclarationError, match="'net': start= must be a function"):
        pair(start={"w": torch.zeros(3)})
    with pytest.raises(ReadError, match="'net': its start= reads 'matter', which is neither"):
        mlo.Engine(pair(start=eval("lambda matter: {}")))
