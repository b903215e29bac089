"""Wrong declarations: each is a typed error that names the culprit, the argument and a cure.

What looks wrong and is not (mutual reads, reads of oneself, odd names) is shown to work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import mlo
from mlo.errors import (
    DeclarationError,
    DeviceError,
    GraphError,
    LossError,
    MethodError,
    MloError,
    ParameterError,
    ReadError,
    StreamError,
)


def sgd(params):
    return torch.optim.SGD(params, 0.1)


def train(net, decay, train):
    return ((net["w"] - decay["w"]) * train).square().sum()


def plain(net):
    return net["w"].square().sum()


def judge(net, valid):
    return (net["w"] - valid).square().sum()


def judge_both(net, decay, valid):
    return (net["w"] * decay["w"] - valid).square().sum()


def problem(name="net", loss=plain, **settings):
    if "module" not in settings:
        settings.setdefault("params", {"w": torch.ones(2)})
    return mlo.Problem(name, loss=loss, **{"optimizer": sgd, **settings})


DATA = {"train": [torch.ones(2)], "valid": [torch.zeros(2)]}


def two(net=None, decay=None, data=None, **settings):
    """The two-level program, with what a case changes in it."""
    lower = problem("net", **{"loss": train, **(net or {})})
    upper = problem("decay", **{"loss": judge, **(decay or {})})
    return mlo.Engine([lower, upper], DATA if data is None else data, **settings)


def one(**settings):
    return mlo.Engine([problem(**settings)])


def anticipating(low=None, mid=None):
    def low_loss(low, mid):
        return (low["w"] - mid["w"]).square().sum()

    def mid_loss(mid, low, top):
        return (mid["w"] * low["w"] - top["w"]).square().sum() + mid["w"].square().sum()

    def top_loss(mid):
        return mid["w"].square().sum()

    return mlo.Engine(
        [
            problem("low", low_loss, hypergradient=low or mlo.Dense()),
            problem("mid", mid_loss, hypergradient=mid or mlo.Dense()),
            problem("top", top_loss),
        ]
    )


CYCLE = {
    "a": lambda a, b: 0.5 * (a["w"] - b["w"]).square().sum(),
    "b": lambda b, c: 0.5 * (b["w"] - 2 * c["w"]).square().sum(),
    "c": lambda a: 0.5 * a["w"].square().sum(),
}


def cycle(method, **settings):
    """a* = b, b* = 2 c, so the top loss is half the square of 2 c."""
    return mlo.Engine(
        [problem(name, loss, hypergradient=method, **settings) for name, loss in CYCLE.items()]
    )


def shared():
    net = nn.Linear(2, 1)

    def other(first):
        return first(torch.ones(2)).sum()

    def own(second, first):
        return second(torch.ones(2)).sum() + first(torch.ones(2)).sum()

    first = problem("first", other, module=net, optimizer=sgd(net.parameters()))
    second = problem("second", own, module=nn.Sequential(net, nn.Linear(1, 1)), optimizer=sgd)
    return mlo.Engine([first, second])


class Stuck(nn.Linear):
    def to(self, *args, **kwargs):
        return self


class Unreadable:
    __signature__ = "none"

    def __call__(self, net):
        return net["w"].sum()


OUTER = sgd([nn.Parameter(torch.ones(2))])


def scheduler_of_another(optimizer):
    return torch.optim.lr_scheduler.StepLR(OUTER, 1)


@dataclasses.dataclass
class Wrong:
    """A mistake: who makes it, what error it is, and what the message must contain."""

    error: type[MloError]
    words: tuple[str, ...]
    make: Callable[[], Any]


def missing(*words, **settings):
    return Wrong(DeclarationError, ("'net'", *words), lambda: one(**settings))


COUNTS = {
    f"{argument}={value!r}": missing(f"{argument}=", "at least", repr(value), **{argument: value})
    for argument, bad in (("every", 0), ("repeat", 0), ("warmup", -1))
    for value in (bad, -5, 1.5, True, "2", None)
}

NAMES = {
    "a name that is no identifier": Wrong(
        DeclarationError, ("'my net'", "identifier"), lambda: one(name="my net")
    ),
    "a keyword as a name": Wrong(
        DeclarationError, ("'lambda'", "identifier"), lambda: one(name="lambda")
    ),
    "a name that is no string": Wrong(DeclarationError, ("3", "identifier"), lambda: one(name=3)),
    "`tick` as a name": Wrong(
        DeclarationError, ("'tick'", "reserved", "choose another"), lambda: one(name="tick")
    ),
    "duplicated names": Wrong(
        GraphError,
        ("'net'", "two problems", "name of its own"),
        lambda: mlo.Engine([problem(), problem()]),
    ),
    "no problem": Wrong(DeclarationError, ("problems", "Problem"), lambda: mlo.Engine([])),
    "a module in place of a problem": Wrong(
        DeclarationError, ("Linear", "Problem"), lambda: mlo.Engine([nn.Linear(1, 1)])
    ),
    "a problem in place of a list": Wrong(
        DeclarationError, ("list", "Problem"), lambda: mlo.Engine(problem())
    ),
    "a name among params that is no identifier": missing(
        "'a.b'", "params", params={"a.b": torch.ones(1)}, loss=lambda net: net["a.b"].sum()
    ),
    "a stream named like a problem": Wrong(
        DeclarationError,
        ("'net'", "a problem", "rename"),
        lambda: two(data={**DATA, "net": [torch.ones(2)]}),
    ),
    "a stream named tick": Wrong(
        DeclarationError,
        ("'tick'", "present tick", "rename"),
        lambda: two(data={**DATA, "tick": [torch.ones(2)]}),
    ),
}

ARGUMENTS = {
    "module and params": missing(
        "module=", "params=", "both", module=nn.Linear(1, 1), params={"w": torch.ones(1)}
    ),
    "neither module nor params": missing("module=", "params=", "neither", module=None),
    "a tensor as a module": missing("module=", "Tensor", "params=", module=torch.ones(2)),
    "params that are no mapping": missing("params", "list", params=[torch.ones(2)]),
    "params that are no tensors": missing("params['w']", "float", params={"w": 1.0}),
    "whole numbers as params": missing("params['w']", "int64", params={"w": torch.ones(1).long()}),
    "a loss that cannot be called": missing("loss=", "function", "str", loss="mse"),
    "a signature that cannot be read": missing("loss=", "reads=", loss=Unreadable()),
    "*args in a loss": missing("loss=", "*args", "reads=", loss=lambda *args: args[0]),
    "a positional-only argument": missing("loss=", "net", "reads=", loss=lambda net, /: net),
    "reads= as a string": missing("reads=", "('net',)", reads="net"),
    "no optimizer": missing("optimizer=", "NoneType", "torch.optim", optimizer=None),
    "the name of an optimizer": missing("optimizer=", "str", "torch.optim", optimizer="adam"),
    "a function that makes no optimizer": missing("optimizer=", "list", optimizer=list),
    "clip_norm=0": missing("clip_norm=", "positive", "0", clip_norm=0),
    "clip_norm=-1": missing("clip_norm=", "positive", "-1", clip_norm=-1),
    "clip_norm=nan": missing("clip_norm=", "positive", "nan", clip_norm=float("nan")),
    "clip_norm as a string": missing("clip_norm=", "positive", "'1'", clip_norm="1"),
    "constant= as a string": missing("constant=", "('decay',)", constant="decay"),
    "constant=None": missing("constant=", "NoneType", constant=None),
    "updates_buffers= as a string": missing(
        "updates_buffers=", "('decay',)", updates_buffers="decay"
    ),
    "project= that cannot be called": missing("project=", "function", "str", project="simplex"),
    "a scheduler class": missing(
        "scheduler=", "StepLR", "function", scheduler=torch.optim.lr_scheduler.StepLR
    ),
    "the name of a scheduler": missing("scheduler=", "cosine", "function", scheduler="cosine"),
    "a function that makes no scheduler": missing(
        "scheduler=", "NoneType", scheduler=lambda optimizer: None
    ),
    "a scheduler of another optimizer": missing(
        "scheduler=", "another optimizer", "build it over", scheduler=scheduler_of_another
    ),
    "scheduler_every= that names no stream": missing(
        "scheduler_every=",
        "'trian'",
        "streams:",
        scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 1),
        scheduler_every="trian",
    ),
    "scheduler_every= near a stream": Wrong(
        DeclarationError,
        ("'net'", "scheduler_every=", "did you mean 'train'"),
        lambda: two(net={"scheduler_every": "trian"}),
    ),
    "the class of a method": Wrong(
        MethodError,
        ("'net'", "hypergradient=", "instance", "mlo.Neumann(terms=10)", "'Neumann'"),
        lambda: one(hypergradient=mlo.Neumann),
    ),
    "the name of a method, mistyped": Wrong(
        MethodError,
        ("'net'", "hypergradient=", "instance", "'neuman'", "did you mean 'neumann'"),
        lambda: one(hypergradient="neuman"),
    ),
}

READS = {
    "an unknown argument with a near name": Wrong(
        ReadError,
        ("'decay'", "'nett'", "did you mean 'net'", "streams:", "default"),
        lambda: two(decay={"loss": lambda nett, valid: nett["w"].sum()}),
    ),
    "a problem that was left out": Wrong(
        ReadError,
        ("'net'", "'decay'", "declare it"),
        lambda: mlo.Engine([problem("net", train)], {"train": DATA["train"]}),
    ),
    "one of two lower problems left out": Wrong(
        ReadError,
        ("'decay'", "'other'", "declare it"),
        lambda: two(decay={"loss": lambda net, other: net["w"].sum() + other["w"].sum()}),
    ),
    "data that was forgotten": Wrong(
        ReadError, ("'net'", "'train'", "data stream"), lambda: two(data={})
    ),
    "a stream that nobody reads": Wrong(
        DeclarationError,
        ("'trains'", "read by no loss", "did you mean 'train'", "data="),
        lambda: two(data={**DATA, "trains": [torch.ones(2)]}),
    ),
    "a stream that is no iterable": Wrong(
        StreamError,
        ("'train'", "iterable", "NoneType", "DataLoader"),
        lambda: two(data={**DATA, "train": None}),
    ),
    "a stream that is a string": Wrong(
        StreamError, ("'train'", "str", "DataLoader"), lambda: two(data={**DATA, "train": "digits"})
    ),
    "data= that is no mapping": Wrong(
        DeclarationError, ("data=", "mapping", "list"), lambda: two(data=[torch.ones(2)])
    ),
    "an empty stream": Wrong(
        StreamError, ("'train'", "empty", "DataLoader"), lambda: two(data={**DATA, "train": []})
    ),
    "an empty generator": Wrong(
        StreamError, ("'valid'", "empty"), lambda: two(data={**DATA, "valid": iter(())})
    ),
    "constant= of what is not read": Wrong(
        GraphError,
        ("'decay'", "constant=", "'nett'", "did you mean 'net'"),
        lambda: two(decay={"constant": ("nett",)}),
    ),
    "constant= of a stream": Wrong(
        GraphError, ("'decay'", "constant=", "'valid'"), lambda: two(decay={"constant": ("valid",)})
    ),
    "constant= of oneself": Wrong(
        GraphError, ("'net'", "constant=", "another"), lambda: two(net={"constant": ("net",)})
    ),
    "constant= of a higher problem": Wrong(
        GraphError,
        ("'net'", "constant=", "'decay'", "above it", "upper problem"),
        lambda: two(net={"constant": ("decay",)}),
    ),
    "updates_buffers= of what is not read": Wrong(
        GraphError,
        ("'decay'", "updates_buffers=", "'other'", "it reads 'net'"),
        lambda: two(decay={"updates_buffers": ("other",)}),
    ),
}

GRAPHS = {
    "a problem that neither reads nor is read": Wrong(
        GraphError,
        ("'alone'", "neither", "engine of its own"),
        lambda: mlo.Engine(
            [
                problem("net", lambda net, decay: (net["w"] - decay["w"]).square().sum()),
                problem("decay", lambda net: net["w"].square().sum()),
                problem("alone", lambda alone: alone["w"].square().sum()),
            ]
        ),
    ),
    "no reads at all among several": Wrong(
        GraphError,
        ("'net'", "neither", "engine of its own"),
        lambda: mlo.Engine([problem(), problem("other", lambda other: other["w"].sum())]),
    ),
    "an upper problem that no lower problem answers to": Wrong(
        GraphError,
        ("'decay'", "'net'", "reads 'decay' back", "list the lower problem first"),
        lambda: mlo.Engine(
            [problem(), problem("decay", lambda net: (net["w"] - 1).square().sum())]
        ),
    ),
    "an upper problem that reads nothing below": Wrong(
        GraphError,
        ("'decay'", "reads no problem below it"),
        lambda: two(decay={"loss": lambda valid: valid.sum()}),
    ),
    "levels in the wrong order": Wrong(
        GraphError,
        ("'decay'", "list the lower problem first"),
        lambda: mlo.Engine([problem("decay", judge), problem("net", train)], DATA),
    ),
    "a loss that reads nothing": Wrong(
        GraphError, ("'net'", "does not read itself"), lambda: one(loss=lambda: torch.ones(()))
    ),
    "constant= that cuts the only route": Wrong(
        GraphError, ("'decay'", "'net'", "constant="), lambda: two(decay={"constant": ("net",)})
    ),
    "only Direct below an upper problem": Wrong(
        GraphError,
        ("'decay'", "'net'", "Direct()", "OneStep()"),
        lambda: two(net={"hypergradient": mlo.Direct()}),
    ),
}

PARAMETERS = {
    "an optimizer with no parameter of its problem": Wrong(
        ParameterError,
        ("'net'", "optimizer=", "own parameters"),
        lambda: one(module=nn.Linear(2, 1), optimizer=OUTER, loss=lambda net: net.weight.sum()),
    ),
    "an optimizer that also holds others": Wrong(
        ParameterError,
        ("'net'", "optimizer=", "1 parameter", "own parameters"),
        lambda: one(
            optimizer=lambda own: sgd([*own, nn.Parameter(torch.ones(1))]),
        ),
    ),
    "an optimizer over the tensors given as params": Wrong(
        ParameterError,
        ("'net'", "optimizer=", "function"),
        lambda: one(params={"w": OUTER.param_groups[0]["params"][0]}, optimizer=OUTER),
    ),
    "a module that is frozen": Wrong(
        ParameterError,
        ("'net'", "requires_grad"),
        lambda: one(module=nn.Linear(2, 1).requires_grad_(False), loss=lambda net: net.weight),
    ),
    "a frozen module with an optimizer of its own": Wrong(
        ParameterError,
        ("'net'", "optimizer=", "requires_grad"),
        lambda: one(
            module=(frozen := nn.Linear(2, 1).requires_grad_(False)),
            optimizer=sgd(frozen.parameters()),
            loss=lambda net: net.weight.sum(),
        ),
    ),
    "a parameter in two problems": Wrong(
        ParameterError,
        ("'first'", "'second'", "'weight'", "'0.weight'", "Copy the module"),
        shared,
    ),
    "a module that stays elsewhere": Wrong(
        DeviceError,
        ("'net'", "'weight'", "cpu", "meta", "module.to"),
        lambda: mlo.Engine(
            [problem(module=Stuck(2, 1), loss=lambda net: net.weight.sum())], device="meta"
        ),
    ),
}

METHODS = {
    "an optimizer with a closure": Wrong(
        MethodError,
        ("'net'", "LBFGS", "recorded step", "ConjugateGradient"),
        lambda: two(net={"optimizer": torch.optim.LBFGS}),
    ),
    "a subclass of a known optimizer": Wrong(
        MethodError,
        ("'net'", "hypergradient=OneStep", "Mine", "SGD"),
        lambda: two(net={"optimizer": type("Mine", (torch.optim.SGD,), {})}),
    ),
    **{
        f"{type(method).__name__} with an optimizer of unknown rule": Wrong(
            MethodError,
            ("'net'", f"hypergradient={type(method).__name__}", "Adagrad", "SGD", "Neumann"),
            lambda method=method: two(
                net={"optimizer": torch.optim.Adagrad, "hypergradient": method}
            ),
        )
        for method in (mlo.OneStep(), mlo.FiniteDifference())
    },
    **{
        f"{type(method).__name__} with project=": Wrong(
            MethodError,
            ("'net'", f"hypergradient={type(method).__name__}", "project=", "OneStep()"),
            lambda method=method: two(net={"project": dict, "hypergradient": method}),
        )
        for method in (mlo.Neumann(), mlo.ConjugateGradient(), mlo.Dense())
    },
    **{
        f"{type(method).__name__} where a response comes after the move": Wrong(
            MethodError,
            ("'a'", f"hypergradient={type(method).__name__}", "'b'", "after it", "Gradient()"),
            lambda method=method: cycle(method),
        )
        for method in (mlo.OneStep(), mlo.FiniteDifference())
    },
    **{
        f"{type(method).__name__} {where} an anticipating problem": Wrong(
            MethodError,
            (f"'{name}'", "'mid'", f"hypergradient={type(method).__name__}", "ConjugateGradient"),
            lambda name=name, method=method: anticipating(**{name: method}),
        )
        for where, name, method in (
            ("below", "low", mlo.OneStep()),
            ("below", "low", mlo.FiniteDifference()),
            ("of", "mid", mlo.FiniteDifference()),
        )
    },
}

LOSSES = {
    "a vector": Wrong(
        LossError, ("'net'", "scalar", "(2,)", ".mean()"), lambda: one(loss=lambda net: net["w"])
    ),
    "a tensor of one entry": Wrong(
        LossError, ("'net'", "scalar", "(1,)"), lambda: one(loss=lambda net: net["w"][:1])
    ),
    "a number": Wrong(
        LossError, ("'net'", "scalar", "float"), lambda: one(loss=lambda net: net["w"].sum().item())
    ),
    "a whole number": Wrong(
        LossError, ("'net'", "int64"), lambda: one(loss=lambda net: net["w"].sum().long())
    ),
    "nothing": Wrong(LossError, ("'net'", "NoneType"), lambda: one(loss=lambda net: None)),
    "three things": Wrong(
        LossError, ("'net'", "tuple"), lambda: one(loss=lambda net: (net["w"].sum(), {}, 1))
    ),
    "metrics that are no mapping": Wrong(
        LossError,
        ("'net'", "{metric: value}", "Tensor"),
        lambda: one(loss=lambda net: (net["w"].sum(), net["w"])),
    ),
    "an upper loss that does not use what it names": Wrong(
        LossError,
        ("'decay'", "depends on none", "Check"),
        lambda: two(decay={"loss": lambda net, valid: valid.sum()}).step(),
    ),
    **{
        f"a lower loss that does not use the upper problem, by {type(method).__name__}": Wrong(
            LossError,
            ("'decay'", "depends on none", "lower losses use the problems that they name"),
            lambda method=method: two(
                net={
                    "loss": lambda net, decay, train: (net["w"] - train).square().sum(),
                    "hypergradient": method,
                }
            ).step(),
        )
        for method in (mlo.OneStep(), mlo.FiniteDifference(), mlo.Neumann(), mlo.Dense())
    },
    "a loss that detaches its own parameters": Wrong(
        LossError,
        ("'net'", "depends on none", "detached"),
        lambda: one(loss=lambda net: net["w"].detach().sum()).step(),
    ),
}


def looks(net):
    return float(net["w"].sum())


RUNS = {
    "neither ticks nor epochs": ((), {}, ("ticks=", "epochs=")),
    "both ticks and epochs": ((1,), {"epochs": 1}, ("ticks=", "epochs=")),
    "ticks=0": ((0,), {}, ("ticks=", "at least 1", "0")),
    "ticks=2.5": ((2.5,), {}, ("ticks=", "2.5")),
    "epochs=0": ((), {"epochs": 0}, ("epochs=", "at least 1", "0")),
    "record_every=0": ((1,), {"record_every": 0}, ("record_every=", "at least 1", "0")),
    "an evaluation every 0 ticks": ((1,), {"evaluate": {"test": (looks, 0)}}, ("'test'", "0")),
    "an evaluation without a rhythm": ((1,), {"evaluate": {"test": looks}}, ("'test'", "every")),
    "an evaluation that reads a stream": (
        (1,),
        {"evaluate": {"test": (lambda net, train: 0.0, 1)}},
        ("'test'", "'train'", "no problem", "default"),
    ),
    "an evaluation of a mistyped problem": (
        (1,),
        {"evaluate": {"test": (lambda nett: 0.0, 1)}},
        ("'test'", "'nett'", "did you mean 'net'"),
    ),
    "an evaluation with *args": (
        (1,),
        {"evaluate": {"test": (lambda *nets: 0.0, 1)}},
        ("evaluation 'test'", "*nets"),
    ),
}

TABLE = {
    **COUNTS,
    **NAMES,
    **ARGUMENTS,
    **READS,
    **GRAPHS,
    **PARAMETERS,
    **METHODS,
    **{f"a loss: {case}": wrong for case, wrong in LOSSES.items()},
    **{
        f"run: {case}": Wrong(
            DeclarationError,
            words,
            lambda given=given, settings=settings: two().run(*given, **settings),
        )
        for case, (given, settings, words) in RUNS.items()
    },
    "a hypergradient of a mistyped problem": Wrong(
        DeclarationError,
        ("'decoy'", "did you mean 'decay'"),
        lambda: two().hypergradient("decoy"),
    ),
    "epochs of a stream without a length": Wrong(
        DeclarationError,
        ("epochs=", "length", "ticks="),
        lambda: two(data={name: iter(batches) for name, batches in DATA.items()}).run(epochs=1),
    ),
}


@pytest.mark.filterwarnings("ignore:data stream .* cannot be resumed:mlo.errors.ResumeWarning")
@pytest.mark.parametrize("case", TABLE)
def test_a_wrong_declaration_is_named_with_its_cure(case):
    wrong = TABLE[case]
    with pytest.raises(wrong.error) as caught:
        wrong.make()
    assert type(caught.value) is wrong.error
    for word in wrong.words:
        assert word in str(caught.value)


def test_the_error_carries_the_name_of_the_culprit():
    with pytest.raises(ReadError) as caught:
        two(decay={"loss": lambda nett: nett["w"].sum()})
    assert caught.value.problem == "decay"


@pytest.mark.filterwarnings("ignore:data stream .* cannot be resumed:mlo.errors.ResumeWarning")
def test_an_exhausted_generator_is_named_with_its_cure_and_the_ticks_before_it_count():
    engine = two(data={**DATA, "train": (torch.ones(2) for _ in range(2))})
    with pytest.raises(StreamError, match=r"'train'.*iterator.*DataLoader"):
        engine.run(ticks=3)
    assert engine.tick == 2


W = [torch.tensor([2.0, -1.0]).double(), torch.tensor([0.5, 3.0]).double()]


@pytest.mark.parametrize("reads_itself", [True, False])
def test_mutual_reads_are_a_two_level_program(reads_itself):
    """Each moves on its own gradient with the other where it stands; the upper one anticipates."""

    def low(one, two):
        return 0.5 * (one["w"] - 3 * two["w"]).square().sum()

    def high(two, one):
        return 0.5 * (one["w"] - 1).square().sum() + 0.5 * two["w"].square().sum()

    def blind(one):
        return 0.5 * (one["w"] - 1).square().sum()

    upper = high if reads_itself else blind
    engine = mlo.Engine(
        [
            problem("one", low, params={"w": W[0]}, hypergradient=mlo.Dense()),
            problem("two", upper, params={"w": W[1]}),
        ]
    )
    engine.step()
    # one* = 3 two, so its derivative is 3; 0.1 is the rate. Rounding only.
    one = W[0] - 0.1 * (W[0] - 3 * W[1])
    gradient = 3 * (one - 1) + (W[1] if reads_itself else 0)
    found = {name: p.module["w"].detach() for name, p in engine.problems.items()}
    torch.testing.assert_close(found["one"], one, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(found["two"], W[1] - 0.1 * gradient, rtol=1e-14, atol=1e-15)


def test_a_read_that_nobody_answers_is_a_constant():
    def student(student, teacher):
        return 0.5 * (student["w"] * teacher["w"]).square().sum()

    teacher = problem("teacher", lambda teacher: teacher["w"].sum(), params={"w": W[0]})
    engine = mlo.Engine([teacher, problem("student", student, params={"w": W[1]})])
    assert torch.equal(engine.hypergradient("student")["w"], W[1] * W[0] * W[0])
    assert torch.equal(engine.hypergradient("teacher")["w"], torch.ones(2))


def test_a_cycle_of_three_runs():
    engine = cycle(mlo.Dense(), params={"w": W[0]})
    torch.testing.assert_close(engine.hypergradient("c")["w"], 2 * W[0], rtol=1e-14, atol=0)


ODD = ["module", "train", "type", "forward", "loss", "params", "self", "data", "name", "keys", "_"]
TAKEN = ["train", "type", "forward", "keys", "values", "training", "float"]


@pytest.mark.parametrize("name", ODD)
def test_any_identifier_is_a_name_of_a_problem_and_of_a_stream(name):
    def loss(first, second):
        own, factor = (first, second) if isinstance(first, nn.Module) else (second, first)
        return (own["w"] * factor).sum()

    net = problem(name, loss, reads=(name, "other"))
    engine = mlo.Engine([net], {"other": [torch.tensor(2.0)]})
    assert torch.equal(engine.hypergradient(name)["w"], torch.full((2,), 2.0))
    engine = mlo.Engine(
        [problem("other", loss, reads=("other", name))], {name: [torch.tensor(2.0)]}
    )
    assert torch.equal(engine.hypergradient("other")["w"], torch.full((2,), 2.0))


@pytest.mark.parametrize("name", [n for n in ODD if n not in TAKEN])
def test_most_identifiers_are_names_of_a_parameter(name):
    net = problem(params={name: W[0]}, loss=lambda net: net[name].square().sum())
    assert torch.equal(mlo.Engine([net]).hypergradient("net")[name], 2 * W[0])


@pytest.mark.parametrize("name", TAKEN)
def test_a_name_of_a_parameter_that_modules_use_themselves_is_refused(name):
    with pytest.raises(DeclarationError, match=rf"'net'.*params.*'{name}'"):
        problem(params={name: W[0]}, loss=lambda net: net[name].square().sum())


def test_settings_left_at_none_are_the_defaults():
    engine = mlo.Engine([problem(hypergradient=None, clip_norm=None, scheduler=None)], None)
    assert engine.problems["net"].hypergradient == mlo.OneStep()
    assert engine.run(ticks=1, callbacks=(), evaluate=None).status is mlo.Status.COMPLETED


def test_an_upper_problem_with_a_direct_part_may_have_only_direct_below():
    engine = two(net={"hypergradient": mlo.Direct()}, decay={"loss": judge_both})
    decay, net = (engine.problems[name].module["w"].detach() for name in ("decay", "net"))
    assert torch.equal(engine.hypergradient("decay")["w"], 2 * net * net * decay)


def test_a_frozen_backbone_may_be_shared():
    backbone = nn.Linear(2, 2).requires_grad_(False)
    heads = [nn.Sequential(backbone, nn.Linear(2, 1)) for _ in range(2)]

    def low(low, high):
        return (low(torch.ones(2)) - high(torch.ones(2))).square().sum()

    def high(low):
        return low(torch.ones(2)).square().sum()

    engine = mlo.Engine(
        [problem("low", low, module=heads[0]), problem("high", high, module=heads[1])]
    )
    assert set(engine.hypergradient("high")) == {"1.weight", "1.bias"}
