"""Programs for the checks: Learning From Mistakes in small, and problems that are solved."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mlo
from mlo.testing import HypergradientCheck, Reference, check_hypergradient

LOWER, MIDDLE, UPPER = "learner", "relearner", "upper"
NAMES = (LOWER, MIDDLE, UPPER)


def sgd(rate: float = 0.1, **settings: object) -> Callable:
    return lambda params: torch.optim.SGD(params, rate, **settings)


def plain_net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def noisy_net() -> nn.Module:
    """Normalization with running statistics, and a mask."""
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 3)
    )


def learn(learner, upper, train):
    x, labels = train
    return (
        upper(x).sigmoid().mean(1) * F.cross_entropy(learner(x), labels, reduction="none")
    ).mean()


def relearn(relearner, learner, upper, train, valid):
    x, labels = train
    mistakes = F.cross_entropy(learner(valid[0]), valid[1])
    weights = (upper(x).mean(1) * mistakes).sigmoid()
    return (weights * F.cross_entropy(relearner(x), labels, reduction="none")).mean()


def judge(relearner, valid):
    x, labels = valid
    return F.cross_entropy(relearner(x), labels)


LOSSES = {LOWER: learn, MIDDLE: relearn, UPPER: judge}


def lfm(
    methods: mlo.Hypergradient | Mapping[str, mlo.Hypergradient] | None = None,
    *,
    losses: Mapping[str, Callable] | None = None,
    optimizer: Callable | None = None,
    net: Callable[[], nn.Module] = plain_net,
    dtype: torch.dtype = torch.float64,
    lookahead: bool = False,
    nested: str = "exact",
    **options: object,
) -> mlo.Engine:
    """A learner, a relearner that answers to its mistakes, and an upper problem that weights both.

    Args:
        methods: one for both lower problems, or one for each name.
        losses: name -> loss, in the place of the usual ones.
        optimizer: of all problems.
        net: makes the module of each problem.
        dtype: of all that is real.
        lookahead: see `mlo.Engine`.
        nested: see `mlo.Engine`.
        **options: of the two lower problems.
    """
    torch.manual_seed(0)
    chosen = methods if isinstance(methods, Mapping) else dict.fromkeys(NAMES[:2], methods)
    problems = []
    for name in NAMES:
        module = net().to(dtype)
        problems.append(
            mlo.Problem(
                name,
                module=module,
                loss={**LOSSES, **(losses or {})}[name],
                optimizer=(optimizer or sgd())(module.parameters()),
                hypergradient=chosen.get(name),
                **(options if name != UPPER else {}),
            )
        )
    data = {stream: batches(dtype) for stream in ("train", "valid")}
    return mlo.Engine(problems, data, lookahead=lookahead, nested=nested)


def batches(dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    x, labels = torch.randn(3, 8, 4).to(dtype), torch.randint(0, 3, (3, 8))
    return list(zip(x, labels, strict=True))


def pair(
    lower: Callable,
    upper: Callable,
    method: mlo.Hypergradient | None = None,
    *,
    low: Mapping[str, Tensor] | None = None,
    top: Mapping[str, Tensor] | None = None,
    optimizer: Callable | None = None,
    data: Mapping[str, list] | None = None,
    lookahead: bool = False,
    **options: object,
) -> mlo.Engine:
    """A lower problem `low` of three numbers and an upper one `top` of three."""
    return mlo.Engine(
        [
            mlo.Problem(
                "low",
                params=low or {"w": torch.tensor([0.3, -0.2, 0.5])},
                loss=lower,
                optimizer=optimizer or sgd(),
                hypergradient=method,
                **options,
            ),
            mlo.Problem(
                "top",
                params=top or {"x": torch.tensor([0.7, 0.1, -0.4])},
                loss=upper,
                optimizer=sgd(),
            ),
        ],
        data,
        lookahead=lookahead,
    )


def bowl(low, top):
    """Strongly convex, and no quadratic."""
    w, x = low["w"], top["x"]
    return (torch.tensor([1.0, 2.0, 3.0]).to(w) * (w - x) ** 2).sum() + 0.1 * (w * x).pow(4).sum()


def aim(low, top):
    return (low["w"] - 1).square().sum() + 0.1 * (low["w"] * top["x"]).sum().sin()


def chain(
    methods: Mapping[str, mlo.Hypergradient],
    *,
    nested: str = "exact",
    losses: Mapping[str, Callable] | None = None,
) -> mlo.Engine:
    """Three levels of two numbers each; the middle one anticipates the answer of the lowest."""

    def lowest(z, y, x):
        z, y, x = z["w"], y["w"], x["w"]
        return z.square().sum() / 2 + 0.1 * (z**4).sum() - (z * (2 * y + x)).sum()

    def middle(y, x, z):
        return (y["w"] - x["w"]).square().sum() / 2 + z["w"].square().sum() / 2

    def top(y, z):
        return (y["w"] - 1).square().sum() / 2 + (z["w"] - 0.5).square().sum() / 2

    given = {"z": lowest, "y": middle, "x": top, **(losses or {})}
    start = {"z": [0.5, 0.1], "y": [0.2, -0.3], "x": [1.5, 0.7]}
    problems = [
        mlo.Problem(
            name,
            params={"w": torch.tensor(start[name])},
            loss=given[name],
            optimizer=sgd(),
            hypergradient=methods.get(name),
        )
        for name in start
    ]
    return mlo.Engine(problems, nested=nested)


def staged(methods: Mapping[str, mlo.Hypergradient], losses: Mapping[str, Callable] = {}):
    """Two lower problems in a row, both strongly convex, and an upper one that moves both."""

    def first(a, top):
        return (a["w"] - top["w"]).square().sum() + 0.1 * (a["w"] ** 4).sum()

    def second(b, a, top):
        return (b["w"] - a["w"] * top["w"]).square().sum() + 0.1 * (b["w"] ** 4).sum()

    def last(b):
        return (b["w"] - 1).square().sum()

    given = {"a": first, "b": second, "top": last, **losses}
    start = {"a": [0.3, 0.2], "b": [0.3, 0.2], "top": [0.4, 0.9]}
    return mlo.Engine(
        [
            mlo.Problem(
                name,
                params={"w": torch.tensor(start[name])},
                loss=given[name],
                optimizer=sgd(),
                hypergradient=methods.get(name),
            )
            for name in start
        ]
    )


ERROR = 1e-5  # the default tolerance; here it is met by rounding alone
LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True], ids=["after moves", "look-ahead"])
TICKS = pytest.mark.parametrize("ticks", [0, 3])


def passed(engine: mlo.Engine, name: str, reference: Reference, **settings) -> HypergradientCheck:
    found = check_hypergradient(engine, name, **settings)
    assert found.problem == name
    assert found.reference is reference
    assert found.error <= ERROR
    assert found.resolution < 1e-2
    assert set(found.methods) == set(engine.graph.scope(name))
    return found


def moves(engine: mlo.Engine, name: str = UPPER, **settings) -> HypergradientCheck:
    found = passed(engine, name, Reference.MOVES, **settings)
    assert [loss.problem for loss in found.losses] == list(NAMES)
    return found
