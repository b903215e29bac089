"""One tick and one hypergradient: records and keys."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mlo
from mlo.errors import DeclarationError, LossError

from .classified import RATE, UPPER_RATE, batch, engine, net_of, train_loss, valid_loss


def test_the_record_of_a_tick_holds_what_a_hand_written_loop_measures():
    net = net_of()
    twin = net_of()
    twin.load_state_dict(net.state_dict())
    data = {"train": [batch()], "valid": [batch()]}
    record = engine(net, data=data).step()

    decay = {"log": torch.tensor(-2.0, requires_grad=True)}
    loss, metrics = train_loss(twin, decay, data["train"][0])
    params = dict(twin.named_parameters())
    grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
    moved = {k: p - RATE * g for (k, p), g in zip(params.items(), grads, strict=True)}
    judged = torch.func.functional_call(
        _Judge(twin), {f"net.{k}": t for k, t in moved.items()}, data
    )
    (slope,) = torch.autograd.grad(judged, decay["log"])

    low, high = record.moves
    assert (record.tick, [move.problem for move in record.moves]) == (0, ["net", "decay"])
    # Rounding of sums in another order.
    torch.testing.assert_close(low.loss, loss.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(high.loss, judged.detach(), rtol=1e-12, atol=0)
    norm = torch.cat([g.detach().reshape(-1) for g in grads]).norm()
    torch.testing.assert_close(low.gradient_norm, norm, rtol=1e-12, atol=0)
    torch.testing.assert_close(high.gradient_norm, slope.abs(), rtol=1e-10, atol=0)
    assert low.metrics == {"accuracy": metrics["accuracy"], "size": 6}
    assert high.metrics == {}
    assert (low.learning_rate, high.learning_rate) == (RATE, UPPER_RATE)
    assert low.responses == ()
    assert [(r.problem, r.method) for r in high.responses] == [("net", "OneStep")]
    assert high.responses[0].info.outcome is mlo.Outcome.EXPLICIT
    assert record.losses == {"net": loss.item(), "decay": high.loss.item()}
    assert record.seconds > 0


class _Judge(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, data):
        return valid_loss(self.net, data["valid"][0])


def test_records_are_plain_numbers_on_request_and_cannot_be_changed():
    record = engine(method=mlo.ConjugateGradient(iterations=3, damping=1.0)).step()
    plain = record.plain()
    assert plain["kind"] == "tick"
    response = plain["moves"][1]["responses"][0]
    assert (response["problem"], response["method"]) == ("net", "ConjugateGradient")
    assert response["outcome"] in ("converged", "limit")
    assert response["products"] == 4
    assert type(response["residual"]) is float
    assert plain["moves"][0]["metrics"].keys() == {"accuracy", "size"}
    with pytest.raises(AttributeError):
        record.tick = 5
    with pytest.raises(AttributeError):
        record.moves[0].loss = 0.0


def test_the_gradient_norm_is_that_before_clipping():
    net = mlo.Problem(
        "net",
        params={"w": torch.tensor([3.0, 4.0])},
        loss=lambda net: 0.5 * net["w"].square().sum(),
        optimizer=lambda params: torch.optim.SGD(params, 1.0),
        clip_norm=1.0,
    )
    move = mlo.Engine([net]).step().moves[0]
    assert float(move.gradient_norm) == 5.0
    # `clip_grad_norm_` divides by the norm + 1e-6.
    torch.testing.assert_close(
        net.module["w"].detach(), torch.tensor([2.4, 3.2]), atol=1e-6, rtol=0
    )


def test_the_moves_are_told_while_the_tick_goes_on():
    made, told = engine(), []
    made.step(lambda move: told.append((move.problem, made.tick)))
    assert told == [("net", 0), ("decay", 0)]
    assert made.tick == 1


METHODS = [
    mlo.Direct(),
    mlo.OneStep(),
    mlo.FiniteDifference(),
    mlo.Neumann(terms=2, alpha=1e-3),
    mlo.ConjugateGradient(iterations=2, damping=10.0),
    mlo.Dense(damping=10.0),
]


@pytest.mark.parametrize("lookahead", [False, True])
@pytest.mark.parametrize("method", METHODS[1:], ids=lambda m: type(m).__name__)
def test_a_hypergradient_names_every_variable_and_is_zero_where_nothing_depends(method, lookahead):
    net = net_of()
    net[1].requires_grad_(False)
    made = engine(net, method=method, lookahead=lookahead)
    for name, module in (("net", net), ("decay", made.problems["decay"].module)):
        found = made.hypergradient(name)
        own = {k: p for k, p in module.named_parameters() if p.requires_grad}
        assert list(found) == list(own)
        for key, tensor in found.items():
            assert (tensor.shape, tensor.dtype) == (own[key].shape, own[key].dtype)
            assert not tensor.requires_grad
    assert "1.weight" not in made.hypergradient("net")
    assert torch.equal(made.hypergradient("decay")["idle"], torch.zeros(2, 2))
    assert made.hypergradient("decay")["log"] != 0


def test_a_hypergradient_is_zero_where_nothing_answers():
    """All of it, in an upper problem that reads itself but has no use for it; nothing moves."""
    low = mlo.Problem(
        "low",
        params={"w": torch.ones(2)},
        loss=lambda low, high: low["w"].square().sum(),
        optimizer=lambda params: torch.optim.SGD(params, 0.1),
    )
    high = mlo.Problem(
        "high",
        params={"w": torch.ones(3)},
        loss=lambda high, low: low["w"].sum(),
        optimizer=lambda params: torch.optim.SGD(params, 0.1),
    )
    made = mlo.Engine([low, high])
    assert torch.equal(made.hypergradient("high")["w"], torch.zeros(3))
    with pytest.raises(LossError, match="'high'"):
        made.step()


def test_variables_left_out_of_the_optimizer_are_no_keys():
    net = net_of()
    lower = mlo.Problem(
        "net",
        module=net,
        loss=lambda net: net(torch.ones(2, 3)).square().sum(),
        optimizer=torch.optim.SGD(net[3].parameters(), RATE),
    )
    assert list(mlo.Engine([lower]).hypergradient("net")) == ["3.weight", "3.bias"]


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(DeclarationError, match=r"'decai'.*did you mean 'decay'"):
        engine().hypergradient("decai")


@pytest.mark.filterwarnings("error")
def test_a_total_gradient_comes_with_its_records_instead_of_warnings():
    made = engine(method=mlo.ConjugateGradient(iterations=1))
    values, (response,) = made.total_gradient("decay")
    assert (response.problem, response.method, response.solves) == ("net", "ConjugateGradient", 1)
    assert response.info.residual > 1e-6
    saddle = mlo.Problem(
        "net",
        params={"w": torch.ones(2)},
        loss=lambda net, upper: (
            net["w"] * torch.tensor([1.0, -1.0]) * net["w"] * upper["x"]
        ).sum(),
        optimizer=lambda params: torch.optim.SGD(params, RATE),
        hypergradient=mlo.ConjugateGradient(),
    )
    upper = mlo.Problem(
        "upper",
        params={"x": torch.ones(1)},
        loss=lambda net: net["w"].sum(),
        optimizer=lambda params: torch.optim.SGD(params, RATE),
    )
    made = mlo.Engine([saddle, upper])
    values, (response,) = made.total_gradient("upper")
    assert response.info.outcome is mlo.Outcome.NEGATIVE_CURVATURE
    with pytest.warns(mlo.errors.HypergradientWarning, match="negative curvature"):
        assert torch.equal(made.hypergradient("upper")["x"], values["x"])
