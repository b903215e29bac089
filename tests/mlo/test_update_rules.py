"""D and the carry of every known rule: against autograd, and against PyTorch's own steps."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn, optim

from mlo.optimizer_steps import STEP_RULES
from mlo.update_rules import carried, update_derivative

from .hypergradients.steps import OPTIMIZERS, Adam, RMSprop, adam, groups_of, rmsprop

SHAPES = ((3,), (), (2, 2))
STATES = pytest.mark.parametrize("steps", [0, 1, 6])
NAMES = pytest.mark.parametrize("name", OPTIMIZERS)


def built(make, steps: int, seed: int = 0) -> tuple[optim.Optimizer, list[nn.Parameter]]:
    """An optimizer after some real steps, about to make another one."""
    draw = torch.Generator().manual_seed(seed)
    params = [nn.Parameter(torch.randn(s, generator=draw)) for s in SHAPES]
    optimizer = make(params)
    for step in range(steps + 1):
        for p in params:
            p.grad = torch.randn(p.shape, generator=draw) * (1 + step) / 3
        if step < steps:
            optimizer.step()
    return optimizer, params


def groups(optimizer: optim.Optimizer) -> dict[int, dict]:
    return {id(p): g for g in optimizer.param_groups for p in g["params"]}


def by_autograd(optimizer, params, rule) -> tuple[list[Tensor], list[Tensor]]:
    """d update / d gradient and dw'/dw of the step written by hand; it acts entry by entry."""
    slopes, carries = [], []
    for p in params:
        w, g = p.detach().clone().requires_grad_(), p.grad.clone().requires_grad_()
        reached, _ = rule(w, g, groups(optimizer)[id(p)], optimizer.state.get(p, {}))
        carry, slope = torch.autograd.grad(reached.sum(), [w, g])
        slopes.append(-slope)
        carries.append(carry)
    return slopes, carries


def stepped(optimizer, params, *, dg: float = 0.0, dw: float = 0.0) -> list[Tensor]:
    """Where PyTorch's own step leads from shifted gradients or parameters."""
    twin = copy.deepcopy(optimizer)
    twins = [p for group in twin.param_groups for p in group["params"]]
    with torch.no_grad():
        for p, q in zip(params, twins, strict=True):
            q.grad = None if p.grad is None else p.grad + dg
            q.add_(dw)
    twin.step()
    return [q.detach() for q in twins]


def by_differences(optimizer, params, h: float = 1e-6) -> tuple[list[Tensor], list[Tensor]]:
    def central(**shift: float) -> list[Tensor]:
        back = {k: -v for k, v in shift.items()}
        pairs = zip(
            stepped(optimizer, params, **shift), stepped(optimizer, params, **back), strict=True
        )
        return [(a - b) / (2 * h) for a, b in pairs]

    return [-s for s in central(dg=h)], central(dw=h)


def agree(found, expected, tolerance: float) -> None:
    for x, y in zip(found, expected, strict=True):
        spread, small = torch.as_tensor(x, dtype=y.dtype).expand(y.shape), float(y.abs().max())
        torch.testing.assert_close(spread, y, rtol=tolerance, atol=tolerance * small)


@STATES
@NAMES
def test_derivative_and_carry_are_those_of_the_step_written_by_hand(name, steps):
    make, rule = OPTIMIZERS[name]
    optimizer, params = built(make, steps)
    slopes, carries = by_autograd(optimizer, params, rule)
    derivative = update_derivative(optimizer, params)
    # At its first step Adam follows the sign of g: of D a share of eps is left after cancellation.
    agree(derivative, slopes, 1e-6 if steps == 0 else 1e-10)
    agree(carried(optimizer, params, derivative), carries, 1e-10)


@STATES
@NAMES
def test_derivative_and_carry_are_those_of_the_step_that_pytorch_makes(name, steps):
    make, _ = OPTIMIZERS[name]
    optimizer, params = built(make, steps, seed=1)
    slopes, carries = by_differences(optimizer, params)
    derivative = update_derivative(optimizer, params)
    found = (*derivative, *carried(optimizer, params, derivative))
    for x, y in zip(found, (*slopes, *carries), strict=True):
        # Rounding over 2e-6, and h^2 of the curvature.
        torch.testing.assert_close(torch.as_tensor(x).expand(y.shape), y, rtol=1e-6, atol=1e-9)


ADAPTIVE = {
    "adam": lambda ps: Adam(ps, 0.1, eps=0.1),
    "amsgrad": lambda ps: Adam(ps, 0.1, eps=0.1, amsgrad=True),
    "rmsprop": lambda ps: RMSprop(ps, 0.1, eps=0.1),
    "centered": lambda ps: RMSprop(ps, 0.1, eps=0.1, centered=True, momentum=0.9),
}


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_where_every_gradient_was_zero_the_derivative_is_finite_and_right(name, steps, adapted):
    optimizer, params = built(ADAPTIVE[name], 0)
    for p in params:
        p.grad = torch.zeros_like(p)
    for _ in range(steps):
        optimizer.step()
    found = update_derivative(optimizer, params, adapted=adapted)
    assert all(bool(d.isfinite().all()) for d in found)
    if adapted and isinstance(optimizer, Adam):
        assert all(bool((d == 0).all()) for d in found)
        return
    # |g| enters the denominator: an error of about 1e-6 / eps.
    slopes, _ = by_differences(optimizer, params)
    agree(found, slopes, 1e-4)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_zero_gradient_after_others_is_right_too(name):
    optimizer, params = built(ADAPTIVE[name], 3)
    for p in params:
        p.grad = torch.zeros_like(p)
    slopes, _ = by_differences(optimizer, params)
    agree(update_derivative(optimizer, params), slopes, 1e-6)


def test_a_centered_average_that_rounding_makes_zero_gives_no_nan():
    """The same gradient for ever: what is left of s' - m'^2 is rounding or nothing."""
    for value in (0.5, 0.3):
        p = nn.Parameter(torch.ones(3))
        optimizer = RMSprop([p], 0.1, alpha=0.1, eps=1e-2, centered=True)
        for _ in range(60):
            p.grad = torch.full((3,), value)
            optimizer.step()
        assert p.isfinite().all(), "PyTorch's own step"
        (found,) = update_derivative(optimizer, [p])
        assert found.isfinite().all()
        assert (found.abs() <= 0.1 / 1e-2 * (1 + 1e-6)).all()


TENSORS = {
    "sgd": (optim.SGD, {"momentum": 0.9, "foreach": False}),
    "adam": (optim.Adam, {"foreach": False}),
    "adamw": (optim.AdamW, {"foreach": False}),
    "rmsprop": (optim.RMSprop, {"foreach": False}),
}


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("name", TENSORS)
def test_a_rate_that_is_a_tensor_is_that_number(name, shape, adapted):
    kind, options = TENSORS[name]
    rate = 0.0625  # the same in float32
    tensor = torch.full(shape, rate, dtype=torch.float32)
    found, same = (
        built(lambda ps, lr=lr: kind(ps, lr, weight_decay=0.1, **options), 2)
        for lr in (tensor, rate)
    )
    slopes = [update_derivative(*pair, adapted=adapted) for pair in (found, same)]
    for d, e, p in zip(*slopes, found[1], strict=True):
        product = torch.ones_like(p) * d
        assert product.shape == p.shape
        assert product.dtype == p.dtype
        torch.testing.assert_close(product, torch.ones_like(p) * e)
    carries = [carried(*pair, d) for pair, d in zip((found, same), slopes, strict=True)]
    for c, e, p in zip(*carries, found[1], strict=True):
        assert (torch.ones_like(p) * c).shape == p.shape
        torch.testing.assert_close(torch.ones_like(p) * c, torch.ones_like(p) * e)


def test_betas_that_are_tensors_are_those_numbers():
    betas = (0.75, 0.875)
    tensors = tuple(torch.full((1,), b, dtype=torch.float32) for b in betas)
    found, same = (
        update_derivative(*built(lambda ps, b=b: Adam(ps, 0.1, betas=b, foreach=False), 3))
        for b in (tensors, betas)
    )
    for d, e in zip(found, same, strict=True):
        torch.testing.assert_close(d, e, rtol=1e-6, atol=0)


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("kind", STEP_RULES, ids=lambda kind: kind.__name__)
def test_no_value_is_read_where_that_would_wait_for_a_device(kind, adapted):
    """A meta tensor has no values: reading one raises. Counters lie there with capturable=True."""
    torch.set_default_dtype(torch.float32)  # narrower than what a counter is widened to
    options = {"momentum": 0.9} if kind in (optim.SGD, optim.RMSprop) else {"amsgrad": True}
    optimizer, params = built(lambda ps: kind(ps, 0.1, **options), 2)
    states = [{k: x.to("meta") for k, x in optimizer.state[p].items()} for p in params]
    away = [nn.Parameter(p.detach().to("meta")) for p in params]
    for p in away:
        p.grad = torch.empty_like(p)
    twin = kind(away, 0.1, **options)
    twin.state.update(dict(zip(away, states, strict=True)))
    found = update_derivative(twin, away, adapted=adapted)
    for d, p in zip(found, away, strict=True):
        assert not isinstance(d, Tensor) or (d.shape, d.dtype) == (p.shape, p.dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW, optim.RMSprop])
def test_a_derivative_has_the_dtype_of_its_parameter_and_is_finite(kind, dtype):
    optimizer, _ = built(lambda ps: kind([nn.Parameter(p.detach().to(dtype)) for p in ps], 0.1), 0)
    (group,) = optimizer.param_groups
    for _ in range(3):
        for p in group["params"]:
            p.grad = torch.randn_like(p)
        optimizer.step()
    for adapted in (False, True):
        for d in update_derivative(optimizer, group["params"], adapted=adapted):
            assert d.dtype is dtype
            assert d.isfinite().all()


def test_a_parameter_without_a_gradient_stays_where_it_is():
    for make, _ in OPTIMIZERS.values():
        optimizer, params = built(make, 1)
        params[1].grad = None
        derivative = update_derivative(optimizer, params)
        assert derivative[1] == 0.0
        assert carried(optimizer, params, derivative)[1] == 1.0


ADAMS = {
    name: make
    for name, (make, rule) in OPTIMIZERS.items()
    if rule is adam and "amsgrad" not in name
}


@pytest.mark.parametrize("steps", [1, 6, 40])
@pytest.mark.parametrize("name", ADAMS)
def test_what_sama_takes_is_the_derivative_of_an_update_without_corrections(name, steps):
    """Written by hand with eps = 0, and beside it the formula of the paper's code with its eps."""
    optimizer, params = built(ADAMS[name], steps)
    found = update_derivative(optimizer, params, adapted=True)
    for d, p in zip(found, params, strict=True):
        group, state = groups(optimizer)[id(p)], optimizer.state[p]
        (b1, b2), sign = group["betas"], -1.0 if group["maximize"] else 1.0
        decay = 0.0 if group["decoupled_weight_decay"] else group["weight_decay"]
        g = p.grad.clone().requires_grad_()
        seen = sign * g + decay * p.detach()
        m, s = b1 * state["exp_avg"], b2 * state["exp_avg_sq"]
        after = s + (1 - b2) * seen**2
        (slope,) = torch.autograd.grad(
            (group["lr"] * (m + (1 - b1) * seen) / after.sqrt()).sum(), g
        )
        agree([d], [slope], 1e-5)  # eps is 1e-8, and roots of s' are of the order of 1e-2
        old = (1 - b1) * s - (1 - b2) * m * seen
        written = sign * group["lr"] * old / (after.sqrt() + group["eps"]) ** 3
        agree([d], [written.detach()], 1e-10)
        exact = update_derivative(optimizer, [p])[0]
        t = float(state["step"]) + 1
        agree([d * (1 - b2**t) ** 0.5 / (1 - b1**t)], [exact], 1e-4)


def test_for_other_rules_sama_takes_the_derivative_itself():
    for name, (make, rule) in OPTIMIZERS.items():
        if rule is adam:
            continue
        optimizer, params = built(make, 3)
        exact, found = (update_derivative(optimizer, params, adapted=a) for a in (False, True))
        for d, e in zip(found, exact, strict=True):
            assert torch.equal(torch.as_tensor(d), torch.as_tensor(e)), name


def test_groups_have_their_own_rules():
    make = groups_of(RMSprop, {"lr": 0.3, "centered": True}, {"alpha": 0.2}, lr=0.1)
    optimizer, params = built(make, 2)
    slopes, _ = by_autograd(optimizer, params, rmsprop)
    agree(update_derivative(optimizer, params), slopes, 1e-10)
    assert len(optimizer.param_groups) == 3
