"""Modules changed behind the engine, and modules that it cannot serve."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from mlo.errors import (
    EvaluationError,
    ParameterError,
)

from .small import LOOKAHEAD, X, sgd, two


def trained():
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def assigned(net):
    state = {key: value.detach().clone() for key, value in net.state_dict().items()}
    net.load_state_dict(state, assign=True)


def replaced(net):
    net[1].bias = nn.Parameter(net[1].bias.detach().clone())


def exchanged(net):
    net[0] = nn.Linear(3, 4)


CHANGES = {
    "frozen": (lambda net: net[1].requires_grad_(False), "'1.weight' was frozen"),
    "replaced": (replaced, "'1.bias' was replaced"),
    "assigned": (assigned, "'0.weight' was replaced"),
    "exchanged": (exchanged, "'0.weight' was replaced"),
    "parametrized": (
        lambda net: parametrize.register_parametrization(net[1], "bias", nn.Tanh()),
        "'1.bias' was replaced",
    ),
}


CALLS = {
    "run": lambda engine: engine.run(ticks=1),
    "hypergradient": lambda engine: engine.hypergradient("top"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("change", CHANGES)
def test_variables_changed_behind_the_engine_are_refused(change, call):
    net = trained()
    engine = two(net)
    engine.run(ticks=1)
    make, message = CHANGES[change]
    make(net)
    with pytest.raises(ParameterError, match=rf"'net'.*variable {message}.*build a new engine"):
        CALLS[call](engine)
    assert engine.tick == 1


@LOOKAHEAD
def test_values_loaded_in_place_are_seen(lookahead):
    net, other = trained(), trained()
    engine = two(net, lookahead=lookahead)
    net.load_state_dict(other.state_dict())
    found = engine.hypergradient("top")["a"]
    assert torch.equal(found, two(other, lookahead=lookahead).hypergradient("top")["a"])


def test_frozen_parameters_replaced_behind_the_engine_are_seen_or_refused():
    net = trained()
    net[0].requires_grad_(False)
    engine = two(net)
    net[0].load_state_dict({k: 3 * v + 1 for k, v in net[0].state_dict().items()}, assign=True)
    try:
        found = engine.hypergradient("top")["a"]
    except ParameterError:
        return
    assert torch.equal(found, two(net).hypergradient("top")["a"])


def unfrozen(net, optimizer):
    optimizer.add_param_group({"params": list(net[0].requires_grad_().parameters())})


def hooked(net, optimizer):
    net[1].bias.register_hook(lambda g: 2 * g)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("change", [unfrozen, hooked])
def test_what_an_engine_would_pass_over_is_refused_after_it_was_built_as_well(change, call):
    net = trained()
    net[0].requires_grad_(False)
    engine = two(net)
    change(net, engine.problems["net"].optimizer)
    with pytest.raises(ParameterError, match="'net'"):
        CALLS[call](engine)


@pytest.mark.parametrize("call", CALLS)
def test_inference_mode_around_the_engine_is_refused(call):
    engine = two()
    with torch.inference_mode(), pytest.raises(EvaluationError, match=r"inference_mode.*outside"):
        CALLS[call](engine)


@LOOKAHEAD
def test_gradients_switched_off_around_a_run_change_nothing(lookahead):
    ends = []
    for off in (False, True):
        torch.manual_seed(3)
        net = trained()
        engine = two(net, lookahead=lookahead)
        with torch.set_grad_enabled(not off):
            engine.run(ticks=3)
        ends.append([*net.parameters(), engine.problems["top"].module["a"]])
    assert all(torch.equal(p, q) for p, q in zip(*ends, strict=True))


HOOKS = {
    "hook": lambda p: p.register_hook(lambda g: 2 * g),
    "hook after accumulation": lambda p: p.register_post_accumulate_grad_hook(lambda p: None),
}


@pytest.mark.parametrize("hook", HOOKS)
def test_a_parameter_with_a_hook_that_would_not_run_is_refused(hook):
    net = trained()
    handle = HOOKS[hook](net[1].bias)
    with pytest.raises(ParameterError, match=r"'net'.*'1\.bias'.*hooks.*remove.*clip_norm="):
        two(net)
    handle.remove()
    two(net).step()


@pytest.mark.parametrize("given", [False, True])
def test_a_lazy_module_is_refused_until_it_has_seen_a_batch(given):
    net = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2))
    low = {"optimizer": sgd(net.parameters())} if given else {}
    with pytest.raises(ParameterError, match=r"'net'.*'0\.weight'.*lazy.*once on a batch"):
        two(net, low=low)
    net(X)
    before = net[0].weight.detach().clone()
    two(net, low=low).step()
    assert not torch.equal(net[0].weight, before)
