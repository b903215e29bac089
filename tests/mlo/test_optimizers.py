"""Optimizers and schedulers are kept as given: runs equal plain PyTorch bit for bit."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler as schedules

import mlo
from mlo.errors import DeclarationError, LossError, MethodError, ParameterError

TICKS, EPOCH = 14, 4


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 1)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.two(self.one(x).tanh())[:, 0]


def batches():
    draw = torch.Generator().manual_seed(2)
    return [
        (torch.randn(5, 3, generator=draw), torch.randn(5, generator=draw)) for _ in range(EPOCH)
    ]


def fit(net, train):
    x, y = train
    error = net(x) - y
    return error.square().mean(), {"worst": error.abs().max()}


def frozen_adamw(net):
    net.one.weight.requires_grad_(False)
    net.two.bias.requires_grad_(False)
    return optim.AdamW(net.parameters(), 0.05, weight_decay=0.1)


def groups(net):
    return optim.SGD(
        [
            {"params": net.one.parameters(), "lr": 0.2, "weight_decay": 0.1, "nesterov": True},
            {"params": [net.two.bias], "lr": 0.01, "momentum": 0.0},
            {"params": [net.unused, net.two.weight]},
        ],
        0.1,
        momentum=0.9,
    )


def loaded(net):
    earlier = optim.Adam(net.parameters(), 0.03, amsgrad=True)
    for _ in range(3):
        earlier.zero_grad()
        fit(net, batches()[0])[0].backward()
        earlier.step()
    for p in net.parameters():
        p.grad = None
    fresh = optim.Adam(net.parameters(), 1.0)
    fresh.load_state_dict(earlier.state_dict())
    return fresh


def over_all(kind, *args, **options):
    return lambda net: kind(net.parameters(), *args, **options)


def positive(tensors):
    """Bound one, shorten another, leave the rest."""
    weight = tensors["two.weight"]
    return {"one.bias": tensors["one.bias"].clamp_min(0.0), "two.weight": weight / weight.norm()}


def decayed(optimizer):
    warm = schedules.LinearLR(optimizer, 0.1, total_iters=4)
    rest = schedules.CosineAnnealingWarmRestarts(optimizer, 5)
    return schedules.SequentialLR(optimizer, [warm, rest], [4])


@dataclasses.dataclass(frozen=True)
class Case:
    optimizer: Callable[[nn.Module], optim.Optimizer]
    scheduler: Callable[[optim.Optimizer], Any] | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def repeat(self):
        return self.options.get("repeat", 1)


MOMENTUM = over_all(optim.SGD, 0.1, momentum=0.9, weight_decay=0.01)
CASES = {
    "frozen parameters under AdamW": Case(frozen_adamw),
    "a subset": Case(lambda net: optim.Adam([*net.two.parameters()], 0.1)),
    "groups": Case(groups),
    "loaded state": Case(loaded),
    "maximize": Case(over_all(optim.SGD, 0.01, maximize=True)),
    "tensor rate": Case(over_all(optim.Adam, torch.tensor(0.05), foreach=False)),
    "RMSprop": Case(over_all(optim.RMSprop, 0.01, momentum=0.5, centered=True)),
    "Adagrad": Case(over_all(optim.Adagrad, 0.1)),
    "Adadelta": Case(over_all(optim.Adadelta, 1.0)),
    "Adamax": Case(over_all(optim.Adamax, 0.05)),
    "NAdam": Case(over_all(optim.NAdam, 0.05)),
    "RAdam": Case(over_all(optim.RAdam, 0.05)),
    "ASGD": Case(over_all(optim.ASGD, 0.05)),
    "Rprop": Case(over_all(optim.Rprop, 0.05)),
    "OneCycleLR": Case(MOMENTUM, lambda o: schedules.OneCycleLR(o, 0.3, total_steps=TICKS + 1)),
    "CosineAnnealingLR": Case(
        over_all(optim.AdamW, 0.1), lambda o: schedules.CosineAnnealingLR(o, 9)
    ),
    "LambdaLR of groups": Case(
        groups, lambda o: schedules.LambdaLR(o, lambda step: 1 / (1 + step))
    ),
    "SequentialLR": Case(MOMENTUM, decayed),
    "ReduceLROnPlateau": Case(
        over_all(optim.SGD, 0.5),
        lambda o: schedules.ReduceLROnPlateau(o, patience=0, threshold=0.3),
    ),
    "ReduceLROnPlateau of a metric": Case(
        over_all(optim.SGD, 0.5),
        lambda o: schedules.ReduceLROnPlateau(o, "max", patience=0, threshold=0.3),
        {"scheduler_metric": "worst"},
    ),
    "per epoch": Case(
        MOMENTUM, lambda o: schedules.StepLR(o, 1, 0.5), {"scheduler_every": "train"}
    ),
    "plateau per epoch": Case(
        MOMENTUM,
        lambda o: schedules.ReduceLROnPlateau(o, patience=0, threshold=0.9),
        {"scheduler_every": "train"},
    ),
    "per move of several updates": Case(
        MOMENTUM, lambda o: schedules.ExponentialLR(o, 0.9), {"repeat": 2}
    ),
    "per epoch with several updates": Case(
        MOMENTUM, lambda o: schedules.StepLR(o, 1, 0.5), {"scheduler_every": "train", "repeat": 2}
    ),
    "clip_norm": Case(over_all(optim.Adam, 0.1), None, {"clip_norm": 0.2}),
    "project": Case(MOMENTUM, None, {"project": positive}),
    "all at once": Case(
        groups,
        lambda o: schedules.StepLR(o, 3, 0.5),
        {"clip_norm": 0.5, "project": positive, "repeat": 2},
    ),
}
SETTINGS = {
    "alone": {},
    "below": {"lookahead": False},
    "look-ahead": {"lookahead": True},
}
DIFFERENTIATED = (optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop)


def built(case):
    torch.manual_seed(1)
    net = Net()
    optimizer = case.optimizer(net)
    return net, optimizer, case.scheduler and case.scheduler(optimizer)


def by_hand(case, change):
    """The loop that a PyTorch user writes; returns its rates, update by update."""
    net, optimizer, scheduler = built(case)
    data, rates = batches(), []
    every = case.options.get("scheduler_every")
    for i in range(TICKS * case.repeat):
        change(i // case.repeat, optimizer)
        optimizer.zero_grad()
        loss, metrics = fit(net, data[i % EPOCH])
        loss.backward()
        if "clip_norm" in case.options:
            held = [p for g in optimizer.param_groups for p in g["params"]]
            own = [p for p in net.parameters() if any(p is q for q in held)]
            nn.utils.clip_grad_norm_(own, case.options["clip_norm"])
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        if "project" in case.options:
            with torch.no_grad():
                named = dict(net.named_parameters())
                for key, value in positive({k: p.detach() for k, p in named.items()}).items():
                    named[key].copy_(value)
        period = case.repeat if every is None else EPOCH
        if scheduler is not None and (i + 1) % period == 0:
            watched = {**metrics, "loss": loss}[case.options.get("scheduler_metric", "loss")]
            plateau = isinstance(scheduler, schedules.ReduceLROnPlateau)
            scheduler.step(*([float(watched.detach())] if plateau else []))
    return net, optimizer, scheduler, rates


def by_engine(case, setting, change):
    net, optimizer, scheduler = built(case)
    method = mlo.Neumann(terms=2, alpha=0.1)
    if type(optimizer) in DIFFERENTIATED:
        method = mlo.OneStep()
    elif "project" in case.options:
        method = mlo.Direct()
    common = {"module": net, "optimizer": optimizer, "scheduler": scheduler, **case.options}
    if setting == "alone":
        problems = [mlo.Problem("net", loss=fit, **common)]
    else:
        # An upper problem that is differentiated and moves, and that the lower loss reads at no
        # effect on its value, so that the loop by hand needs no upper problem.
        def lower(net, upper, train):
            loss, metrics = fit(net, train)
            return loss + 0.0 * upper["c"] * loss.detach(), metrics

        def judge(net, upper, train):
            return fit(net, train)[0] + upper["c"].square()

        problems = [
            mlo.Problem("net", loss=lower, hypergradient=method, **common),
            mlo.Problem(
                "upper",
                params={"c": torch.tensor(1.0)},
                loss=judge,
                optimizer=lambda params: optim.SGD(params, 0.1),
            ),
        ]
    engine = mlo.Engine(problems, {"train": batches()}, **SETTINGS[setting])
    rates = []
    for tick in range(TICKS):
        change(tick, optimizer)
        moves = engine.step().moves
        rates += [m.learning_rate for m in moves if m.problem == "net"]
    own = engine.problems["net"]
    assert own.module is net
    assert own.optimizer is optimizer
    assert own.scheduler is scheduler
    return net, optimizer, scheduler, rates


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or callable(a)


def compare(case, setting, change=lambda tick, optimizer: None):
    want, got = by_hand(case, change), by_engine(case, setting, change)
    assert got[3] == want[3], "the learning rates"
    assert same(got[0].state_dict(), want[0].state_dict())
    assert same(got[1].state_dict(), want[1].state_dict())
    if want[2] is not None:
        assert same(
            *(
                {k: v for k, v in s[2].state_dict().items() if k != "_schedulers"}
                for s in (got, want)
            )
        )
    return got


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", CASES)
def test_a_run_equals_plain_pytorch_bit_for_bit(name, setting):
    start = copy.deepcopy(built(CASES[name])[0].state_dict())
    net, _, _, rates = compare(CASES[name], setting)
    assert not same(net.state_dict(), start)
    assert len(set(rates)) > 1 or CASES[name].scheduler is None, "a schedule that never acts"


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", ["groups", "OneCycleLR", "frozen parameters under AdamW"])
def test_a_rate_that_the_user_changes_takes_effect_at_once(name, setting):
    def change(tick, optimizer):
        if tick == 5:
            for group in optimizer.param_groups:
                group["lr"] *= 0.3
                group["weight_decay"] = 0.2

    rates = compare(CASES[name], setting, change)[3]
    assert rates[5] < rates[4]


def test_parameters_that_are_no_variables_are_left_alone_and_out_of_the_answer():
    net = Net()
    net.one.bias.requires_grad_(False)
    optimizer = optim.AdamW([*net.one.parameters(), net.two.bias], 0.1)
    # Left over from the user's own training, before the layer was frozen.
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    before = copy.deepcopy(net.state_dict())
    engine = mlo.Engine(
        [mlo.Problem("net", module=net, loss=fit, optimizer=optimizer)], {"train": batches()}
    )
    assert list(engine.hypergradient("net")) == ["one.weight", "two.bias"]
    for _ in range(3):
        engine.step()
    for key, p in net.named_parameters():
        assert torch.equal(p, before[key]) == (key not in ("one.weight", "two.bias")), key


def test_a_step_leaves_the_gradients_that_the_user_holds():
    net = Net()
    engine = mlo.Engine(
        [mlo.Problem("net", module=net, loss=fit, optimizer=MOMENTUM(net))], {"train": batches()}
    )
    held = {key: torch.rand_like(p) for key, p in net.named_parameters() if "one" in key}
    for key, p in net.named_parameters():
        p.grad = held.get(key)
    engine.step()
    assert all(p.grad is held.get(key) for key, p in net.named_parameters())


def test_parameters_whose_gradient_is_one_tensor_are_clipped_once():
    """Autograd hands out the gradient of a sum to both terms, and clipping writes in place."""
    problem = mlo.Problem(
        "p",
        params={"a": torch.ones(3), "b": torch.zeros(3)},
        loss=lambda p: 0.5 * (p["a"] + p["b"]).square().sum(),
        optimizer=lambda params: optim.SGD(params, 1.0),
        clip_norm=0.6,
    )
    mlo.Engine([problem]).step()
    # Both gradients are (1, 1, 1), of length sqrt(6) together; torch adds 1e-6 to the length.
    moved = 1.0 - 0.6 / (6**0.5 + 1e-6)
    torch.testing.assert_close(problem.module["a"].detach(), torch.full((3,), moved))
    torch.testing.assert_close(problem.module["b"].detach(), torch.full((3,), moved - 1.0))


UNKNOWN = {
    "Adamax": lambda params: optim.Adamax(params, 0.01),
    "Adagrad": lambda params: optim.Adagrad(params, 0.01),
    "a subclass": lambda params: type("Mine", (optim.SGD,), {})(params, 0.01),
}


@pytest.mark.parametrize("make", UNKNOWN.values(), ids=UNKNOWN)
@pytest.mark.parametrize(
    "method",
    [mlo.OneStep(), mlo.FiniteDifference(), mlo.Sama(), mlo.Neumann(), mlo.Direct()],
    ids=repr,
)
def test_a_rule_of_unknown_derivative_serves_where_the_method_does_not_need_it(make, method):
    def pair():
        lower = mlo.Problem(
            "lower",
            params={"w": torch.tensor(1.0)},
            loss=lambda lower, upper: (lower["w"] - upper["c"]) ** 2,
            optimizer=make,
            hypergradient=method,
        )
        upper = mlo.Problem(
            "upper",
            params={"c": torch.tensor(0.0)},
            loss=lambda lower, upper: lower["w"] ** 2 + upper["c"] ** 2,
            optimizer=make,
        )
        return mlo.Engine([lower, upper])

    if isinstance(method, (mlo.OneStep, mlo.FiniteDifference, mlo.Sama)):
        with pytest.raises(MethodError, match=r"'lower'.*SGD, Adam, AdamW, RMSprop.*Neumann"):
            pair()
    else:
        pair().step()


def declared(**options):
    net = Net()
    given = {"optimizer": optim.SGD(net.parameters(), 0.1), **options}
    problem = mlo.Problem(
        "net",
        module=net,
        loss=fit,
        **{
            k: v(net) if k == "optimizer" and not isinstance(v, optim.Optimizer) else v
            for k, v in given.items()
        },
    )
    return mlo.Engine([problem], {"train": batches()})


def elsewhere(_):
    return schedules.StepLR(optim.SGD([nn.Parameter(torch.ones(1))], 0.1), 1)


REFUSED = {
    "other parameters": (
        {"optimizer": lambda net: optim.SGD([*net.parameters(), nn.Parameter(torch.ones(1))], 0.1)},
        ParameterError,
        r"'net'.*1 parameter.*not in its module.*own parameters",
    ),
    "nothing trainable": (
        {"optimizer": lambda net: optim.SGD([net.one.weight.requires_grad_(False)], 0.1)},
        ParameterError,
        r"'net'.*no trainable parameter.*requires_grad",
    ),
    "another's scheduler": (
        {"scheduler": elsewhere(None)},
        DeclarationError,
        r"'net'.*scheduler=.*another optimizer.*function",
    ),
    "scheduler of no stream": (
        {"scheduler": lambda o: schedules.StepLR(o, 1), "scheduler_every": "trian"},
        DeclarationError,
        r"'net'.*'trian'.*did you mean 'train'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_serve_is_refused_with_culprit_and_cure(name):
    options, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        declared(**options)


def test_a_metric_that_the_loss_does_not_return_is_named():
    engine = declared(
        scheduler=lambda o: schedules.ReduceLROnPlateau(o, "max"), scheduler_metric="wrost"
    )
    with pytest.raises(LossError, match=r"'net'.*'wrost'.*did you mean 'worst'"):
        engine.step()


def test_a_scheduler_class_is_a_function_from_the_optimizer_to_a_scheduler():
    engine = declared(scheduler=schedules.ReduceLROnPlateau)
    assert isinstance(engine.problems["net"].scheduler, schedules.ReduceLROnPlateau)
    engine.step()
