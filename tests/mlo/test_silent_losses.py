"""What autograd, schedulers and losses do without a word, and would make numbers wrong."""

from __future__ import annotations

import pytest
import torch

import mlo
from mlo.errors import DoubleBackwardError, EvaluationError

INDEX = torch.tensor([0, 1, 1])


def sgd(params):
    return torch.optim.SGD(params, 0.1)


def problem(name, value, loss, reads, method=None, *, optimizer=sgd, **settings):
    return mlo.Problem(
        name,
        params={"w": torch.as_tensor(value)},
        loss=loss,
        reads=reads,
        optimizer=optimizer,
        hypergradient=method,
        **settings,
    )


def nested(sparse: bool) -> mlo.Engine:
    def look(z):
        return torch.gather(z["w"], 0, INDEX, sparse_grad=sparse)

    def lowest(z, y, x):
        seen = look(z)
        return (0.5 * seen**2 + 0.1 * seen**4 - seen * (y["w"] + x["w"])).sum()

    def middle(y, z, x):
        return y["w"] ** 2 + 0.4 * (look(z) ** 2).sum() - y["w"] * x["w"]

    def top(y, z):
        return (y["w"] - 1) ** 2 + (look(z) - 0.5).square().sum()

    method = mlo.Dense()
    return mlo.Engine(
        [
            problem("z", [0.3, 0.4], lowest, ("z", "y", "x"), method),
            problem("y", 0.2, middle, ("y", "z", "x"), method),
            problem("x", 0.5, top, ("y", "z")),
        ],
        dry_run=False,
    )


def test_a_sparse_gradient_in_a_nested_level_is_refused_since_autograd_drops_its_derivative():
    assert nested(sparse=False).hypergradient("x")["w"].isfinite()
    # First derivatives are fine.
    torch.testing.assert_close(nested(True).hypergradient("y"), nested(False).hypergradient("y"))
    with pytest.raises(DoubleBackwardError, match=r"'z': the gradient of its loss is sparse"):
        nested(sparse=True).hypergradient("x")


def trained(rate) -> torch.Tensor:
    """The upper problem after two ticks with a lower rate that a scheduler halves."""

    def fit(low, top):
        return (low["w"] - top["w"]).square().sum() + 0.1 * (low["w"] ** 4).sum()

    low = problem(
        "low",
        [1.0, -0.5],
        fit,
        ("low", "top"),
        mlo.Neumann(terms=3),
        optimizer=lambda params: torch.optim.SGD(params, rate),
        scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5),
    )
    top = problem("top", [0.3, 0.8], lambda low: (low["w"] - 2).square().sum(), ("low",))
    mlo.Engine([low, top]).run(2)
    return top.module["w"].detach()


def test_a_recorded_rate_is_that_of_the_move_though_a_scheduler_changes_the_tensor_in_place():
    torch.testing.assert_close(trained(torch.tensor(0.2)), trained(0.2))


def test_a_loss_that_writes_into_its_batch_is_refused():
    def spoil(net, train):
        return (net["w"] * train.mul_(0.5)).sum()

    net = problem("net", [1.0, 2.0], spoil, ("net", "train"))
    with pytest.raises(EvaluationError, match=r"'net': its loss writes into its batch of 'train'"):
        mlo.Engine([net], {"train": [torch.ones(2)]})
