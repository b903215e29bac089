"""What recorded moves are held against: by differences of PyTorch's own optimizers."""

from __future__ import annotations

import copy

import pytest
import torch

import mlo
from mlo.testing import lfm_shaped, quadratic
from mlo.testing.later_calls import _adam, _momentum, two_rates
from mlo.testing.steps import adam_step, sgd_step
from mlo.testing.unrolled import snapshot, unrolled
from mlo.testing.watched import ask

RATE, MOVES = 0.2, 4
RULES = {"SGD": (_momentum(RATE), sgd_step), "Adam": (_adam(RATE), adam_step)}


def recorded(form, make):
    engine = form.engine(mlo.OneStep(), rate=RATE, away=True, optimizer=make)
    history, optimizers = [snapshot(engine)], []
    for _ in range(MOVES):
        problems = [engine.problems[level.name] for level in form.levels[:-1]]
        optimizers.append([copy.deepcopy(p.optimizer.state_dict()) for p in problems])
        engine.step()
        history.append(snapshot(engine))
    return history, optimizers


def replayed(form, make, recording, reach, shift):
    """The upper loss, and where the lower problems get, by the optimizers themselves."""
    history, optimizers = recording
    upper, first = form.levels[-1], len(history) - 1 - reach
    at = lambda w: {k: t + shift[k] for k, t in w.items()}  # noqa: E731
    params = {
        level.name: {
            k: torch.nn.Parameter(t.clone()) for k, t in history[first].values[level.name].items()
        }
        for level in form.levels[:-1]
    }
    made = []
    for level, state in zip(form.levels[:-1], optimizers[first], strict=True):
        made.append(make(list(params[level.name].values())))
        made[-1].load_state_dict(copy.deepcopy(state))
    for tick in history[first:-1]:
        for level, optimizer in zip(form.levels[:-1], made, strict=True):
            values = {**params, upper.name: at(tick.values[upper.name])}
            own = list(params[level.name].values())
            loss = level.loss(*(values[read] for read in level.reads))
            for p, g in zip(own, torch.autograd.grad(loss, own), strict=True):
                p.grad = g
            optimizer.step()
    values = {**params, upper.name: at(history[-1].values[upper.name])}
    return upper.loss(*(values[read] for read in upper.reads)).detach(), params


@pytest.mark.parametrize("reach", [1, 2, 4])
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("form", [quadratic(seed=5), lfm_shaped(seed=5)], ids=str)
def test_it_is_the_derivative_of_the_last_updates(form, name, reach):
    make, rule = RULES[name]
    recording = history, _ = recorded(form, make)
    found, direct = unrolled(form, history, rule, reach=reach)
    zero = {k: torch.zeros_like(t) for k, t in found.items()}
    _, params = replayed(form, make, recording, reach, zero)
    for level in form.levels[:-1]:
        for k, p in params[level.name].items():
            assert torch.equal(p.detach(), history[-1].values[level.name][k]), "another program"
    step = 1e-5
    for k, t in found.items():
        for i in range(t.numel()):
            unit = torch.zeros_like(t).reshape(-1)
            unit[i] = step
            shift = {**zero, k: unit.reshape(t.shape)}
            back = {n: -x for n, x in shift.items()}
            ahead, behind = (replayed(form, make, recording, reach, s)[0] for s in (shift, back))
            slope = (ahead - behind) / (2 * step)
            # Rounding of 1e-16 over the step, and its square.
            torch.testing.assert_close(t.reshape(-1)[i], slope, rtol=1e-7, atol=1e-8)
            assert abs(float(direct[k].reshape(-1)[i] - slope)) > 1e-7, "no response to see"


def test_more_updates_than_there_are_are_all_of_them():
    form, (make, rule) = quadratic(), RULES["SGD"]
    history, _ = recorded(form, make)
    some, all_ = (unrolled(form, history, rule, reach=r)[0] for r in (99, MOVES))
    assert all(torch.equal(some[k], all_[k]) for k in some)


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_the_form_of_two_rates_has_the_hessian_and_the_truth_that_it_says(rate):
    form, optimizer = two_rates(rate)
    low = form.levels[0]

    def loss(vector):
        own = {"matrix": vector[:-1].reshape(-1, 1), "scalar": vector[-1]}
        values = {form.upper: form.levels[-1].solution, low.name: own}
        return low.loss(*(values[read] for read in low.reads))

    at = torch.cat([t.reshape(-1) for t in low.solution.values()])
    hessian = torch.autograd.functional.hessian(loss, at)
    rates = torch.tensor([rate] * (len(at) - 1) + [rate / 4])
    torch.testing.assert_close(hessian, torch.diag(1 / rates), rtol=1e-12, atol=1e-12)
    assert torch.autograd.functional.jacobian(loss, at).abs().max() < 1e-12
    answer = ask(form, mlo.Neumann(terms=1), rate=rate, optimizer=optimizer)
    for k, t in form.truth.items():
        torch.testing.assert_close(answer.values[k], t, rtol=1e-12, atol=1e-12)
