"""Micro-batches: one update from the mean of several losses, one graph at a time."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mlo

LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True], ids=["after moves", "look-ahead"])
CLOSE = {"rtol": 1e-12, "atol": 1e-12}  # sums in another order
METHODS = {
    "OneStep": mlo.OneStep(),
    "central": mlo.FiniteDifference(),
    "forward": mlo.FiniteDifference(scheme="forward"),
    "CG": mlo.ConjugateGradient(iterations=4, damping=20.0),
    "Neumann": mlo.Neumann(terms=2, alpha=0.01),
    "Dense": mlo.Dense(),
}
METHOD = pytest.mark.parametrize("name", METHODS)


def sgd(params):
    return torch.optim.SGD(params, 0.1, momentum=0.9)


def batches(n, seed, size=4):
    draw = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 3, generator=draw), torch.randint(0, 2, (size,), generator=draw))
        for _ in range(n)
    ]


def joined(data, n):
    """The same examples in batches that are n times as large."""
    groups = [data[i : i + n] for i in range(0, len(data), n)]
    return [tuple(torch.cat(parts) for parts in zip(*group, strict=True)) for group in groups]


class Net(nn.Module):
    def __init__(self, *, norm=False, dropout=0.0):
        super().__init__()
        self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 2)
        self.norm = nn.BatchNorm1d(4) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        return self.two(self.drop(self.norm(self.one(x)).tanh()))


def fit(net, upper, train):
    """A mean over examples, so that the mean of means is that of all."""
    x, t = train
    errors = F.cross_entropy(net(x), t, reduction="none")
    size = sum(p.square().sum() for p in net.parameters())
    return ((x @ upper["weight"]).sigmoid() * errors).mean() + upper["decay"].exp() * size


def judge(net, upper, valid):
    x, t = valid
    loss = F.cross_entropy(net(x), t)
    return loss + 0.1 * upper["weight"].square().sum(), {"loss": loss, "size": len(x)}


def program(data, *, accumulate=(1, 1), method=None, net=None, engine=None, **lower):
    torch.manual_seed(3)
    net = Net() if net is None else net
    upper = {"weight": torch.tensor([0.3, -0.5, 0.2]), "decay": torch.tensor(-2.0)}
    problems = [
        mlo.Problem(
            "net",
            module=net,
            loss=fit,
            optimizer=sgd(net.parameters()),
            hypergradient=method,
            accumulate=accumulate[0],
            **lower,
        ),
        mlo.Problem("upper", params=upper, loss=judge, optimizer=sgd, accumulate=accumulate[1]),
    ]
    return mlo.Engine(problems, data, **(engine or {}))


def everything(engine):
    return {
        f"{name}.{k}": t.detach().clone()
        for name, p in engine.problems.items()
        for k, t in p.module.state_dict().items()
    }


@METHOD
@pytest.mark.parametrize("retain", [True, False], ids=["graph kept", "recomputed"])
@LOOKAHEAD
def test_n_micro_batches_are_one_batch_of_all_their_examples(name, retain, lookahead):
    data = {"train": batches(12, 1), "valid": batches(8, 2)}
    large = {"train": joined(data["train"], 3), "valid": joined(data["valid"], 2)}
    settings = {"method": METHODS[name], "engine": {"lookahead": lookahead, "retain": retain}}
    engine = program(data, accumulate=(3, 2), **settings)
    other = program(large, **settings)
    # The difference of a difference is divided by the radius.
    close = {"rtol": 1e-10, "atol": 1e-10} if name in ("central", "forward") else CLOSE
    for _ in range(4):
        for problem in ("net", "upper"):
            found, want = engine.hypergradient(problem), other.hypergradient(problem)
            torch.testing.assert_close(found, want, **close)
        mine, theirs = engine.step(), other.step()
        torch.testing.assert_close(everything(engine), everything(other), **close)
        for move, like in zip(mine.moves, theirs.moves, strict=True):
            torch.testing.assert_close(move.loss, like.loss, **close)
            torch.testing.assert_close(move.gradient_norm, like.gradient_norm, **close)
            assert [(r.problem, r.solves, int(r.info.products)) for r in move.responses] == [
                (r.problem, r.solves, int(r.info.products)) for r in like.responses
            ]


def test_one_problem_runs_as_the_usual_loop_does():
    """Gradients of loss / n added up by backward, in the same order: equal but for rounding."""
    data = batches(6, 1)

    def loss(net, train):
        value = F.cross_entropy(net(train[0]), train[1])
        return value, {"twice": 2 * value, "one": 1}

    torch.manual_seed(3)
    net = Net(norm=True, dropout=0.4)
    hand = copy.deepcopy(net)
    problem = mlo.Problem(
        "net",
        module=net,
        loss=loss,
        optimizer=torch.optim.Adam(net.parameters(), 0.05, eps=1e-3),
        accumulate=3,
        repeat=2,
        clip_norm=0.5,
    )
    engine = mlo.Engine([problem], {"train": data})
    optimizer = torch.optim.Adam(hand.parameters(), 0.05, eps=1e-3)
    torch.manual_seed(4)
    for _ in range(3):
        for i in (0, 3):
            optimizer.zero_grad()
            losses = [F.cross_entropy(hand(x), t) for x, t in data[i : i + 3]]
            (sum(losses) / 3).backward()
            nn.utils.clip_grad_norm_(hand.parameters(), 0.5)
            optimizer.step()
        last = (sum(losses) / 3).detach()
    torch.manual_seed(4)
    for _ in range(3):
        record = engine.step()
    torch.testing.assert_close(dict(net.state_dict()), dict(hand.state_dict()), **CLOSE)
    torch.testing.assert_close(record.moves[-1].loss, last, **CLOSE)
    torch.testing.assert_close(record.moves[-1].metrics, {"twice": 2 * last, "one": 1.0}, **CLOSE)


@METHOD
@pytest.mark.filterwarnings("ignore::mlo.errors.HypergradientWarning")  # of the curvature here
def test_masks_and_running_statistics_run_on_from_batch_to_batch_in_a_replay(name):
    """Against one loss that goes through the same micro-batches itself."""
    train, valid = batches(6, 1), batches(6, 2)

    def in_one(net, upper, train):
        return sum(fit(net, upper, batch) for batch in train) / len(train)

    def program_of(loss, accumulate, source):
        torch.manual_seed(3)
        net = Net(norm=True, dropout=0.4)
        lower = mlo.Problem(
            "net",
            module=net,
            loss=loss,
            optimizer=sgd(net.parameters()),
            hypergradient=METHODS[name],
            accumulate=accumulate,
        )
        start = {"weight": torch.tensor([0.3, -0.5, 0.2]), "decay": torch.tensor(-2.0)}
        upper = mlo.Problem("upper", params=start, loss=judge, optimizer=sgd)
        return mlo.Engine([lower, upper], {"train": source, "valid": valid})

    engine = program_of(fit, 3, train)
    other = program_of(in_one, 1, [train[:3], train[3:]])
    close = {"rtol": 1e-10, "atol": 1e-10} if name in ("central", "forward") else CLOSE
    ends = []
    for made in (engine, other):
        torch.manual_seed(7)
        path = []
        for _ in range(3):
            made.step()
            path.append((made.hypergradient("upper"), everything(made)))
        ends.append((path, torch.get_rng_state()))
    torch.testing.assert_close(ends[0][0], ends[1][0], **close)
    assert torch.equal(ends[0][1], ends[1][1])


def test_micro_batches_of_an_anticipating_problem_and_those_above_and_below_it():
    data = {"train": batches(12, 1), "valid": batches(12, 2)}

    def made(sources, n):
        torch.manual_seed(3)
        nets = [Net(), Net()]
        values = {"weight": torch.tensor([0.3, -0.5, 0.2]), "decay": torch.tensor(0.0)}

        def middle(net, mid, upper, valid):
            return F.cross_entropy(net(valid[0]), valid[1]) + fit(mid, upper, valid)

        def low(net, mid, train):
            near = sum(
                (p - q).square().sum()
                for p, q in zip(net.parameters(), mid.parameters(), strict=True)
            )
            return F.cross_entropy(net(train[0]), train[1]) + near

        method = mlo.ConjugateGradient(iterations=60, tolerance=1e-13)
        problems = [
            mlo.Problem(
                name,
                loss=loss,
                accumulate=count,
                optimizer=sgd(nets[i].parameters()),
                module=nets[i],
                hypergradient=method,
            )
            for i, (name, loss, count) in enumerate([("net", low, n[0]), ("mid", middle, n[1])])
        ]
        top = {"params": values, "loss": lambda upper, mid, train: judge(mid, upper, train)[0]}
        problems.append(mlo.Problem("upper", optimizer=sgd, accumulate=n[2], **top))
        return mlo.Engine(problems, sources)

    engine = made(data, (3, 2, 3))
    other = made({"train": joined(data["train"], 3), "valid": joined(data["valid"], 2)}, (1, 1, 1))
    for _ in range(2):
        # Solves stop at a residual of 1e-13.
        found, want = engine.hypergradient("upper"), other.hypergradient("upper")
        torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-10)
        engine.step(), other.step()
        torch.testing.assert_close(everything(engine), everything(other), rtol=1e-9, atol=1e-10)
