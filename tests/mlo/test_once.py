"""`mlo.once`: the same numbers, with less work."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mlo

BATCH, CLASSES = 6, 3
METHODS = {
    "central": mlo.FiniteDifference(radius=0.01),
    "checked": mlo.FiniteDifference(radius=0.01, check=True, tolerance=1e9),
    "forward": mlo.FiniteDifference(radius=0.01, scheme="forward"),
    "sama": mlo.Sama(radius=0.01),
    "one step": mlo.OneStep(),
    "neumann": mlo.Neumann(alpha=0.1, terms=3),
}
LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True], ids=["after moves", "look-ahead"])


class Net(nn.Module):
    """With dropout and batch normalization, so that draws and buffers must be right."""

    def __init__(self, outputs):
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, outputs)
        self.drop = nn.Dropout(0.3)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.two(self.drop(self.norm(self.one(x)).tanh()))


class Top(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Net(2)
        self.scale = nn.Parameter(torch.ones(CLASSES))


def weigh(learner, top, train, valid):
    (x, _), (other, label) = train, valid
    u = F.cross_entropy(learner(other) * top.scale, label, reduction="none")
    alike = (top.encoder(x) @ top.encoder(other).T).softmax(1)
    return {"a": (alike @ u).sigmoid(), "names": "weights", "mean": u.mean()}


def learn(learner, top, train):
    return F.cross_entropy(learner(train[0]) * top.scale, train[1])


def relearn_with(call):
    def relearn(relearner, learner, top, train, valid):
        random.random()
        found = call(weigh, learner, top, train, valid)
        noise = 1 + 0.1 * torch.rand(BATCH)
        errors = F.cross_entropy(relearner(train[0]) * top.scale, train[1], reduction="none")
        return (found["a"] * noise * errors).mean() * (1 + 0.1 * found["mean"])

    return relearn


def validate(relearner, top, valid):
    return F.cross_entropy(relearner(valid[0]) * top.scale, valid[1])


def plain(function, *args):
    return function(*args)


def batches(count, seed):
    draw = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(BATCH, 4, generator=draw), torch.randint(CLASSES, (BATCH,), generator=draw))
        for _ in range(count)
    ]


def built(method, call, *, lookahead=False, relearn=None, **options):
    torch.manual_seed(0)
    learner, relearner, top = Net(CLASSES), Net(CLASSES), Top()

    def sgd(params):
        return torch.optim.SGD(params, 0.2, momentum=0.9, weight_decay=0.01)

    problems = [
        mlo.Problem("learner", module=learner, loss=learn, optimizer=sgd, hypergradient=method),
        mlo.Problem(
            "relearner",
            module=relearner,
            loss=relearn or relearn_with(call),
            optimizer=sgd,
            hypergradient=method,
            updates_buffers=("top",),
            **options,
        ),
        # Not Adam: biases before a normalization have gradients of rounding alone.
        mlo.Problem("top", module=top, loss=validate, optimizer=lambda p: torch.optim.SGD(p, 0.5)),
    ]
    data = {"train": batches(5, 1), "valid": batches(3, 2)}
    return mlo.Engine(problems, data, lookahead=lookahead)


def everything(engine):
    return {
        f"{name} {key}": value.clone()
        for name, problem in engine.problems.items()
        for key, value in problem.module.state_dict().items()
    }


def assert_same(left, right, tolerance=1e-12):
    assert left.keys() == right.keys()
    for key, value in left.items():
        torch.testing.assert_close(value, right[key], rtol=tolerance, atol=tolerance, msg=key)


def check_same(method, relearn_by=relearn_with, *, ticks=2, **options):
    """Runs of the program with plain calls, and with `once` in their place, end alike."""
    found = []
    for call in (plain, mlo.once):
        engine = built(method, call, relearn=relearn_by(call), **options)
        torch.manual_seed(1)
        for _ in range(ticks):
            engine.step()
        found.append(everything(engine))
    # The difference of two sums against the sum of two differences, over a radius.
    assert_same(*found, 1e-10)


@LOOKAHEAD
@pytest.mark.parametrize("name", METHODS)
def test_runs_are_the_same_with_and_without_it(name, lookahead):
    check_same(METHODS[name], ticks=4, lookahead=lookahead)


def test_hypergradients_between_ticks_are_the_same():
    found = []
    for call in (plain, mlo.once):
        engine = built(METHODS["central"], call, lookahead=True)
        engine.step()
        torch.manual_seed(3)
        found.append(engine.hypergradient("top"))
    assert_same(*found, 1e-10)


@pytest.mark.parametrize(
    ("name", "learner", "relearner", "encoder"),
    # Move, mistakes, two shifted; move, judged, two shifted; and the two batches of the encoder.
    [("central", 4, 4, 2), ("checked", 6, 6, 2), ("sama", 4, 4, 2), ("one step", 2, 2, 2)],
)
def test_what_is_kept_is_evaluated_once_a_tick(name, learner, relearner, encoder):
    torch.manual_seed(0)
    engine = built(METHODS[name], mlo.once)
    nets = [*(engine.problems[n].module for n in ("learner", "relearner"))]
    nets.append(engine.problems["top"].module.encoder)
    engine.step()
    before = [net.calls for net in nets]
    engine.step()
    found = [net.calls - b for net, b in zip(nets, before, strict=True)]
    assert found == [learner, relearner, encoder]


def test_without_it_the_encoder_is_evaluated_for_every_difference():
    engine = built(METHODS["central"], plain)
    encoder = engine.problems["top"].module.encoder
    engine.step()
    before = encoder.calls
    engine.step()
    assert encoder.calls - before == 6


def test_a_start_in_front_of_the_move_is_followed_too():
    check_same(METHODS["central"], ticks=3, start=lambda learner: learner, restart=1)


def test_micro_batches_give_the_same_as_without_it():
    check_same(METHODS["central"], ticks=3, accumulate=2)


def test_cutting_a_route_cuts_it_within_too():
    grads = {}
    for call, constant in itertools.product((plain, mlo.once), ((), ("learner",))):
        engine = built(METHODS["central"], call, constant=constant)
        torch.manual_seed(1)
        engine.step()
        torch.manual_seed(1)
        grads[call, constant] = engine.hypergradient("top")["scale"]
    for constant in ((), ("learner",)):
        torch.testing.assert_close(grads[plain, constant], grads[mlo.once, constant])
    assert not torch.allclose(grads[plain, ()], grads[plain, ("learner",)], rtol=1e-4)


def test_a_result_that_depends_on_the_problem_itself_is_refused():
    def relearn(relearner, learner, top, train, valid):
        a = mlo.once(lambda: weigh(learner, top, train, valid)["a"] * relearner.two.bias.sum())
        errors = F.cross_entropy(relearner(train[0]), train[1], reduction="none")
        return (a * errors).mean()

    engine = built(METHODS["central"], mlo.once, relearn=relearn)
    with pytest.raises(mlo.errors.LossError, match=r"'relearner'.*once.*its own parameters"):
        engine.step()


def test_a_live_parameter_within_is_found():
    stray = [torch.tensor(1.0)]

    def relearn(relearner, learner, top, train, valid):
        a = mlo.once(lambda: weigh(learner, top, train, valid)["a"] * sum(stray))
        errors = F.cross_entropy(relearner(train[0]), train[1], reduction="none")
        return (a * errors).mean()

    engine = built(METHODS["central"], mlo.once, relearn=relearn)
    stray.append(engine.problems["top"].module.scale[0])
    with pytest.raises(mlo.errors.ClosureError, match="'top'"):
        engine.step()


def test_a_loss_that_calls_it_more_often_the_second_time_is_refused():
    calls = itertools.count()

    def relearn(relearner, learner, top, train, valid):
        a = weigh(learner, top, train, valid)["a"]
        for _ in range(next(calls)):
            a = a + mlo.once(torch.zeros, BATCH)
        return (a * F.cross_entropy(relearner(train[0]), train[1], reduction="none")).mean()

    engine = built(METHODS["central"], mlo.once, relearn=relearn)
    with pytest.raises(mlo.errors.LossError, match="more often"):
        engine.step()


def test_calls_within_calls_belong_to_the_outer_one():
    def outer(learner, top, train, valid):
        return mlo.once(weigh, learner, top, train, valid)

    def relearn_by(call):
        return relearn_with(plain if call is plain else lambda f, *args: mlo.once(outer, *args))

    check_same(METHODS["central"], relearn_by)


def test_a_result_that_a_later_call_is_given_passes_its_cotangent_on():
    def relearn_by(call):
        def relearn(relearner, learner, top, train, valid):
            features = call(top.encoder, train[0])
            others = call(lambda: {"same": top.encoder(valid[0]), "twice": 2 * features})
            a = call(
                lambda f, o: (f @ o["same"].T + o["twice"] @ o["same"].T).mean(1), features, others
            )
            errors = F.cross_entropy(relearner(train[0]), train[1], reduction="none")
            return (a.sigmoid() * errors).mean() + 0.01 * (features * relearner.two.bias[:2]).mean()

        return relearn

    check_same(METHODS["central"], relearn_by)


def test_a_loss_may_write_into_what_it_got():
    def relearn_by(call):
        def relearn(relearner, learner, top, train, valid):
            ramp = call(lambda: torch.linspace(1, 2, BATCH))
            ramp *= 0.5
            a = call(weigh, learner, top, train, valid)["a"] * ramp
            return (a * F.cross_entropy(relearner(train[0]), train[1], reduction="none")).mean()

        return relearn

    check_same(METHODS["central"], relearn_by)


class Hidden:
    def __init__(self, a):
        self.a = a


def test_results_in_other_objects_are_refused():
    def relearn(relearner, learner, top, train, valid):
        a = mlo.once(lambda: Hidden(weigh(learner, top, train, valid)["a"])).a
        return (a * F.cross_entropy(relearner(train[0]), train[1], reduction="none")).mean()

    engine = built(METHODS["central"], mlo.once, relearn=relearn)
    with pytest.raises(mlo.errors.LossError, match=r"'relearner'.*once.* holds a Hidden"):
        engine.step()


def test_a_loss_that_calls_it_less_often_the_second_time_is_refused():
    calls = itertools.count()

    def relearn(relearner, learner, top, train, valid):
        a = mlo.once(lambda: weigh(learner, top, train, valid)["a"])
        for _ in range(max(0, 5 - next(calls))):
            a = a + mlo.once(torch.zeros, BATCH)
        return (a * F.cross_entropy(relearner(train[0]), train[1], reduction="none")).mean()

    engine = built(METHODS["central"], mlo.once, relearn=relearn)
    with pytest.raises(mlo.errors.LossError, match="less often"):
        engine.step()


@pytest.mark.parametrize("need", ["graph", "context_gradient"])
def test_methods_that_want_more_of_the_move_get_it_whole(need):
    class Both(type(METHODS["one step" if need == "graph" else "forward"])):
        needs = METHODS["one step" if need == "graph" else "forward"].needs | {"shared"}

    check_same(Both() if need == "graph" else Both(radius=0.01, scheme="forward"))


def test_nothing_is_kept_beyond_the_tick():
    engine = built(METHODS["central"], mlo.once)
    engine.step()
    assert all(move.kept is None for move in engine._mover.moves.values())


def test_outside_of_a_program_it_is_the_call():
    assert mlo.once(torch.add, torch.ones(2), torch.ones(2), alpha=3).tolist() == [4.0, 4.0]
