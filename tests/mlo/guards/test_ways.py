"""What else may be asked for, or may happen, where something is not finite."""

from __future__ import annotations

import types

import pytest
import torch

import mlo
from mlo.errors import NonfiniteError
from mlo.nonfinite import Looking
from mlo.probe import Probe
from mlo.watch import Place

from .planted import KINDS, LOSS, codes, engine, live, same


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("deferred", [False, True])
def test_who_asks_for_nothing_gets_moves_with_whatever_comes(kind, deferred):
    plan = codes("two levels", 2, 0, "a", kind)
    made = engine("two levels", plan, guards=mlo.Guards(on_nonfinite="ignore"))
    made._guard.deferred = deferred
    records = made.run(2).records
    assert all(len(r.moves) == 2 and r.taken_back is None for r in records)
    assert not made.problems["b"].module.w.isfinite().all()
    assert made.incident is None


def test_what_is_finite_when_a_tick_is_made_again_is_named_by_its_flag():
    """A loss that is NaN once is taken back with its tick, but cannot be replayed."""
    calls = []

    def fit(net):
        calls.append(0)
        return net["w"].square().sum() * (torch.nan if len(calls) == 2 else 1.0)

    one = {"params": {"w": torch.ones(2)}, "optimizer": lambda p: torch.optim.SGD(p, 0.1)}
    made = mlo.Engine([mlo.Problem("net", loss=fit, **one)], dry_run=False)
    made._guard.deferred = True
    made.step()
    before = live(made)
    with pytest.raises(NonfiniteError, match="tick 1: the loss of problem 'net' is not") as caught:
        made.step()
    assert "it was finite when the tick was made again" in caught.value.__notes__[0]
    assert (caught.value.incident, caught.value.problem) == (None, "net")
    assert same(before, live(made)) is True


def test_an_error_that_follows_from_a_number_that_is_not_finite_is_not_what_is_shown():
    """Flags are read before an error of a later move is passed on."""

    def fit(net, code):
        return net["w"].square().sum() + code

    def judge(net, top):
        if not net["w"].isfinite().all():
            raise ZeroDivisionError("of no use")
        return net["w"].square().sum() + top["a"] ** 2

    one = {"optimizer": lambda p: torch.optim.SGD(p, 0.1)}
    net = mlo.Problem("net", params={"w": torch.ones(2)}, loss=fit, **one)
    top = mlo.Problem("top", params={"a": torch.tensor(1.0)}, loss=judge, constant=["net"], **one)
    for code, error in ((torch.tensor(torch.nan), NonfiniteError), (torch.tensor(0.0), None)):
        made = mlo.Engine([net, top], {"code": [code]})
        made._guard.deferred = True
        if error is None:
            made.step()
        else:
            with pytest.raises(error, match="the loss of problem 'net' is nan"):
                made.step()


def test_the_last_incident_of_a_run_that_goes_on_is_at_hand():
    plan = codes("two levels", 4, 1, "a", LOSS)
    plan["b"][2] = LOSS
    made = engine("two levels", plan, guards=mlo.Guards(on_nonfinite="skip"))
    seen = []
    for _ in range(4):
        made.step()
        seen.append(made.incident and (made.incident.tick, made.incident.problem))
    assert seen == [None, (1, "a"), (2, "b"), (2, "b")]


def nested(*answers):
    """Who is named when responses of b and, within, of a are taken: (label, cotangent, answer)."""
    program = engine("chain", codes("chain", 1))._program
    watch = Looking(program, Probe(active=False), set())
    watch.begin(Place(0, "c", 0, ("a", "b", "c")))
    watch.loss("c", torch.tensor(1.0))
    at = types.SimpleNamespace(positions=())
    watch.answering("b")
    for label, cotangent, answer in answers:
        if label != "b":
            watch.answering(label)
        result = mlo.Result((torch.tensor([answer]),))
        watch.answered(label, mlo.Direct(), (torch.tensor([cotangent]),), result, at)


def test_of_responses_within_responses_the_first_is_named_and_only_where_it_matters():
    nan = torch.nan
    with pytest.raises(NonfiniteError) as caught:
        nested(("a", 1.0, nan), ("b", 1.0, nan))
    assert caught.value.problem == "a"
    with pytest.raises(NonfiniteError) as caught:  # from the loss of b to the response of a
        nested(("a", nan, nan), ("a", 1.0, nan), ("b", 1.0, nan))
    assert caught.value.problem == "b"
    with pytest.raises(NonfiniteError, match="gradient of problem 'c'") as caught:
        nested(("b", nan, nan))
    assert caught.value.problem == "c"
    nested(("a", 1.0, nan), ("b", 1.0, 1.0))  # a solver did without it
