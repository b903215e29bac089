"""Losses in every form that Python has, what they are handed, and what they may not do."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import mlo
from mlo.errors import CheckpointingError, ClosureError, DoubleBackwardError

START = torch.tensor([2.0, -1.0]).double()
BATCH = torch.tensor([0.5, 3.0]).double()
# One SGD step at rate 0.1 on 3 sum (w - batch)^2.
MOVED = START - 0.1 * 6 * (START - BATCH)


def sgd(params):
    return torch.optim.SGD(params, 0.1)


def by_name(net, data):
    return 3 * (net["w"] - data).square().sum()


def with_defaults(net, data, scale=3.0, *, power=2):
    return scale * ((net["w"] - data) ** power).sum()


def keyword_only(*, data, net):
    return by_name(net, data)


def with_more(net, data, **more):
    assert not more
    return by_name(net, data)


def scaled(scale, net, data, shift):
    return scale * (net["w"] - data - shift).square().sum()


def any_number(*given):
    return by_name(*given)


def positional(net, data, /):
    return by_name(net, data)


def with_metrics(net, data):
    return by_name(net, data), {"half": net["w"].sum() / 2, "plain": 7}


class Holder:
    def __init__(self, scale=3.0):
        self.scale = scale

    def method(self, net, data):
        return self.scale * (net["w"] - data).square().sum()

    @classmethod
    def of_class(cls, net, data):
        return by_name(net, data)

    @staticmethod
    def static(net, data):
        return by_name(net, data)

    def __call__(self, net, data):
        return self.method(net, data)


class Unreadable(Holder):
    __signature__ = "none"


def wrapped(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


LOSSES = {
    "a function": (by_name, None),
    "a lambda": (lambda net, data: 3 * (net["w"] - data).square().sum(), None),
    "arguments in another order": (lambda data, net: by_name(net, data), None),
    "arguments with defaults": (with_defaults, None),
    "keyword-only arguments": (keyword_only, None),
    "**kwargs": (with_more, None),
    "a partial by keyword": (functools.partial(scaled, scale=3.0, shift=0.0), None),
    "a partial by position": (functools.partial(scaled, 3.0, shift=0.0), None),
    "a partial of a default": (functools.partial(with_defaults, power=2), None),
    "a bound method": (Holder().method, None),
    "a class method": (Holder.of_class, None),
    "a static method": (Holder.static, None),
    "a callable object": (Holder(), None),
    "a decorated function": (wrapped(by_name), None),
    "*args with reads=": (any_number, ("net", "data")),
    "positional-only with reads=": (positional, ("net", "data")),
    "no signature with reads=": (Unreadable(), ("net", "data")),
    "other names with reads=": (lambda a, b: 3 * (a["w"] - b).square().sum(), ("net", "data")),
    "reads= as a list": (any_number, ["net", "data"]),
    "metrics beside the loss": (with_metrics, None),
}


def engine(loss, reads=None, **settings):
    net = mlo.Problem("net", params={"w": START}, loss=loss, reads=reads, optimizer=sgd, **settings)
    return mlo.Engine([net], {"data": [BATCH]})


@pytest.mark.parametrize("case", LOSSES)
def test_a_loss_of_any_form_makes_the_same_move(case):
    made = engine(*LOSSES[case])
    assert set(made.problems["net"].reads.names) == {"net", "data"}
    (move,) = made.step().moves
    torch.testing.assert_close(made.problems["net"].module["w"].detach(), MOVED)
    torch.testing.assert_close(move.loss, 3 * (START - BATCH).square().sum())
    assert set(move.metrics) == ({"half", "plain"} if "metrics" in case else set())


def test_metrics_are_kept_without_their_graph():
    (move,) = engine(with_metrics).step().moves
    assert move.metrics == {"half": torch.tensor(0.5), "plain": 7}
    assert not move.metrics["half"].requires_grad
    assert move.plain()["metrics"] == {"half": 0.5, "plain": 7.0}


def test_a_loss_is_handed_the_module_itself():
    net, seen = nn.Sequential(nn.Linear(2, 1)), []

    def loss(net, data):
        seen.append(net)
        return net[0](data).sum() + net.get_submodule("0").weight.sum()

    made = mlo.Problem("net", module=net, loss=loss, optimizer=sgd(net.parameters()))
    mlo.Engine([made], {"data": [BATCH]}).step()
    assert seen
    assert all(handed is net for handed in seen)


def test_bare_tensors_come_as_a_parameter_dict_of_clones():
    given = START.clone()
    seen = []

    def loss(net, data):
        seen.append(type(net))
        return by_name(net, data)

    net = mlo.Problem("net", params={"w": given}, loss=loss, optimizer=sgd)
    made = mlo.Engine([net], {"data": [BATCH]})
    made.step()
    assert set(seen) == {nn.ParameterDict}
    assert torch.equal(given, START), "a move wrote to the tensor that was given"
    before = net.module["w"].detach().clone()
    given.zero_()
    assert torch.equal(net.module["w"], before), "the tensor that was given is still in use"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("attached", [True, False])
def test_bare_tensors_keep_their_kind_and_lose_their_graph(dtype, attached):
    leaf = torch.ones(2, dtype=dtype, requires_grad=True)
    given = 2 * leaf if attached else leaf.detach() * 2
    net = mlo.Problem("net", params={"w": given}, loss=lambda net: net["w"].sum(), optimizer=sgd)
    mlo.Engine([net]).step()
    own = net.module["w"]
    assert (own.dtype, own.is_leaf, leaf.grad) == (dtype, True, None)


def test_one_tensor_given_to_two_problems_is_two():
    both = {"w": START}
    low = mlo.Problem(
        "low",
        params=both,
        loss=lambda low, high: (low["w"] - high["w"]).square().sum(),
        optimizer=sgd,
    )
    high = mlo.Problem("high", params=both, loss=lambda low: low["w"].sum(), optimizer=sgd)
    mlo.Engine([low, high]).step()
    assert low.module["w"].data_ptr() != high.module["w"].data_ptr()


def two_levels(loss, net=None, method=None, **settings):
    """A classifier whose loss is weighed by an upper problem, which has a direct part as well."""
    net = nn.Linear(2, 2) if net is None else net

    def judge(net, upper):
        return net(BATCH).square().sum() + upper["a"].square().sum()

    return mlo.Engine(
        [
            mlo.Problem("net", module=net, loss=loss, optimizer=sgd, hypergradient=method),
            mlo.Problem("upper", params={"a": START}, loss=judge, optimizer=sgd),
        ],
        **settings,
    )


@pytest.mark.parametrize("read", ["net", "upper"])
def test_a_parameter_taken_from_outside_is_named(read):
    net = nn.Linear(2, 2)
    weight = net.weight

    def closed(net, upper):
        return (upper["a"] * (weight @ BATCH)).sum() + net(BATCH).square().sum()

    def unread(upper):
        return (upper["a"] * (weight @ BATCH)).sum()

    with pytest.raises(ClosureError, match=r"'net'.*'weight' of problem 'net'.*argument"):
        two_levels(closed, net) if read == "net" else two_levels(
            lambda net, upper: unread(upper) + net(BATCH).sum(), net
        )


def test_a_module_that_is_read_may_also_be_used_from_outside():
    """Its tensors are replaced in place while the loss runs, so the values are right."""
    found = []
    for closed in (False, True):
        torch.manual_seed(1)
        outside = nn.Linear(2, 2)

        def loss(net, upper, outside=outside, closed=closed):
            return (upper["a"] * (outside if closed else net)(BATCH)).square().sum()

        found.append(two_levels(loss, outside).hypergradient("upper")["a"])
    assert torch.equal(found[0], found[1])
    assert found[0].norm() > 0.1


def test_a_loss_that_uses_another_problem_from_outside_is_named():
    hidden = nn.Linear(2, 2)

    def loss(net, upper):
        return (upper["a"] * net(hidden(BATCH))).sum()

    def other(hidden, net):
        return hidden(BATCH).sum() * net(BATCH).sum()

    problems = [*two_levels(lambda net, upper: (upper["a"] * net(BATCH)).sum()).problems.values()]
    lower = mlo.Problem("net", module=nn.Linear(2, 2), loss=loss, optimizer=sgd)
    third = mlo.Problem("hidden", module=hidden, loss=other, optimizer=sgd)
    with pytest.raises(ClosureError, match=r"'net'.*problem 'hidden'.*argument"):
        mlo.Engine([lower, third, problems[1]])


@pytest.mark.parametrize("dry_run", [True, False])
def test_the_parameter_itself_as_a_loss_is_named(dry_run):
    weight = nn.Parameter(torch.tensor(1.0))
    net = nn.Module()
    net.w = weight
    made = mlo.Problem("net", module=net, loss=lambda net: weight, optimizer=sgd([weight]))
    with pytest.raises(ClosureError, match="'w' of problem 'net'"):
        mlo.Engine([made], dry_run=dry_run).step()


def checkpointed(reentrant, part):
    def loss(net, upper):
        rows = BATCH.clone().requires_grad_()
        hidden = checkpoint(net, rows, use_reentrant=reentrant)
        # Reentrant checkpointing hides parameters from `torch.autograd.grad`: where all of the loss
        # is inside, nothing is left; where a part is, that part of the gradient is missing.
        hidden = hidden if part == "all" else hidden + net(rows)
        return (upper["a"] * hidden).square().sum()

    return loss


@pytest.mark.parametrize("part", ["all", "half"])
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("dry_run", [True, False])
def test_activation_checkpointing_is_refused(reentrant, part, dry_run):
    with pytest.raises(CheckpointingError, match=r"'net'.*checkpointing.*take it out") as caught:
        two_levels(checkpointed(reentrant, part), dry_run=dry_run).step()
    assert caught.value.problem == "net"


class Once(torch.autograd.Function):
    """The square, with a first derivative only."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * x * g


def attention(net, upper):
    q = net(BATCH.repeat(4, 1)).reshape(1, 1, 4, 2)
    return (upper["a"] * F.scaled_dot_product_attention(q, q, q)).sum() + q.square().sum()


def custom(net, upper):
    # `once_differentiable` cuts its backward off: an answer without the response would look right.
    return Once.apply(net(BATCH) - upper["a"]).sum()


@pytest.mark.parametrize("loss", [attention, custom])
@pytest.mark.parametrize("method", [mlo.OneStep(), mlo.Neumann(), mlo.Dense()])
def test_a_loss_without_a_second_derivative_is_named_with_both_ways_out(loss, method):
    with pytest.raises(DoubleBackwardError) as caught:
        two_levels(loss, method=method).step()
    assert caught.value.problem == "net"
    for words in ("'net'", "sdpa_kernel", "FiniteDifference"):
        assert words in str(caught.value)


@pytest.mark.parametrize("loss", [attention, custom])
def test_finite_differences_are_a_way_out(loss):
    made = two_levels(loss, method=mlo.FiniteDifference())
    made.step()
    assert bool(made.hypergradient("upper")["a"].isfinite().all())


def test_math_attention_is_a_way_out():
    def loss(net, upper):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return attention(net, upper)

    assert two_levels(loss).hypergradient("upper")["a"].norm() > 0


def test_an_error_inside_a_loss_is_the_users_own():
    def loss(net, data):
        raise ZeroDivisionError("in the loss")

    with pytest.raises(ZeroDivisionError, match="in the loss"):
        engine(loss)
