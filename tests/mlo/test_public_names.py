"""The names that `mlo` exports, their documentation, and the errors it can raise."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import mlo
import mlo.testing
from mlo import errors

NAMES = """
Callback CheckpointRecord Checkpoints Condition ConjugateGradient Dense DependencyGraph Diagonal
Direct Engine EvaluationRecord FiniteDifference ForwardMode Guards Hypergradient Implicit Info
Iterative LinearSolution Minres MloError Move MoveRecord Neumann Nystrom NystromSketch OneStep
OptimizerDiagonal Outcome Preconditioner Preconditioning Problem ResponseRecord Result RunResult
Sama StartRecord Status Stop TickRecord Unrolled __version__ errors load_weights make_method
methods once read_checkpoint register replay solution
"""
EXPORTED = NAMES.split()

MODULES = [
    importlib.import_module(m.name)
    for m in pkgutil.walk_packages(mlo.__path__, "mlo.")
    if not m.name.endswith("__main__")
]


def test_the_exported_names_are_these_and_no_others():
    assert sorted(mlo.__all__) == sorted(EXPORTED)
    public = {
        name
        for name, value in vars(mlo).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }
    assert public == set(EXPORTED) - {"errors", "__version__"}
    assert mlo.__version__.count(".") == 2


def public_members(module):
    """Name -> class, function, method or property that is defined in the module."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            yield name, value
        if inspect.isclass(value):
            for key, member in vars(value).items():
                function = getattr(member, "fget", None) or getattr(member, "__func__", member)
                if not key.startswith("_") and inspect.isfunction(function):
                    yield f"{name}.{key}", function


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_everything_public_is_documented(module):
    assert module.__doc__
    written = {
        name: vars(value).get("__doc__") or value.__doc__ for name, value in public_members(module)
    }
    # A dataclass without a docstring is given its signature for one.
    missing = [
        n for n, text in written.items() if not text or text.startswith(n.split(".")[-1] + "(")
    ]
    assert missing == []


@pytest.mark.parametrize("name", [n for n in EXPORTED if inspect.isclass(getattr(mlo, n))])
def test_records_and_methods_are_frozen(name):
    kind = getattr(mlo, name)
    if dataclasses.is_dataclass(kind):
        assert kind.__dataclass_params__.frozen


def test_documented_arguments_are_those_of_the_signature():
    methods = (mlo.Neumann, mlo.ConjugateGradient, mlo.FiniteDifference)
    for kind in (mlo.Engine, mlo.Problem, mlo.Guards, *methods):
        text = next(c.__doc__ for c in kind.__mro__ if c.__doc__ and "Args:\n" in c.__doc__)
        section = text.split("Args:\n")[1].split("\n\n")[0]
        indent = len(section) - len(section.lstrip())
        lines = [line[indent:] for line in section.splitlines()]
        documented = [line.split(":")[0] for line in lines if line and not line.startswith(" ")]
        assert documented == list(inspect.signature(kind).parameters), kind


def sgd(params):
    return torch.optim.SGD(params, 0.1)


def engine(loss=lambda net: net["w"].square().sum(), data=None, *, device=None, **settings):
    if "module" not in settings:
        settings.setdefault("params", {"w": torch.ones(2)})
    problem = mlo.Problem("net", loss=loss, **{"optimizer": sgd, **settings})
    return mlo.Engine([problem], data, device=device)


def outside(weight=None):
    weight = nn.Parameter(torch.ones(2))
    net = nn.ParameterDict()
    net["w"] = weight
    return engine(lambda net: (weight * net["w"]).sum(), module=net)


def twice():
    def attend(net, upper):
        q = (net["w"] * upper["w"]).reshape(1, 1, 2, 2)
        return nn.functional.scaled_dot_product_attention(q, q, q).sum() + q.sum()

    def judge(net):
        return net["w"].sum()

    one = {"params": {"w": torch.ones(4)}, "optimizer": sgd}
    lower = mlo.Problem("net", loss=attend, **one)
    return mlo.Engine([lower, mlo.Problem("upper", loss=judge, **one)]).step()


def unsolvable():
    def downhill(net, upper):
        return net["w"].sum() * upper["w"].sum().exp()

    def judge(net):
        return net["w"].square().sum()

    one = {"params": {"w": torch.ones(1)}, "optimizer": sgd, "hypergradient": mlo.Dense()}
    lower = mlo.Problem("net", loss=downhill, **one)
    engine = mlo.Engine([lower, mlo.Problem("upper", loss=judge, **one)])
    return mlo.testing.check_hypergradient(engine, "upper")


def failing(limit):
    """A series that diverges, for a loss that grows."""
    slope = {"params": {"w": torch.ones(2)}, "optimizer": lambda p: torch.optim.SGD(p, 1.0)}

    def steep(net, upper):
        return (upper["w"] * net["w"]).square().sum() * 4.0

    lower = mlo.Problem("net", loss=steep, hypergradient=mlo.Neumann(), **slope)
    upper = mlo.Problem("upper", loss=lambda net: net["w"].sum(), **slope)
    return mlo.Engine([lower, upper], guards=mlo.Guards(**limit)).step()


def drifting():
    """A loss of another value at every evaluation."""
    calls = []

    def drift(net, upper):
        calls.append(0)
        return (net["w"] - upper["w"]).square().sum() + len(calls)

    one = {"params": {"w": torch.ones(2)}, "optimizer": sgd, "hypergradient": mlo.Dense()}
    lower = mlo.Problem("net", loss=drift, **one)
    return mlo.Engine([lower, mlo.Problem("upper", loss=lambda net: net["w"].sum(), **one)]).step()


class Stuck(nn.Linear):
    def to(self, *args, **kwargs):
        return self


# One way to each error; the tests of declarations, streams and losses have the others.
RAISED = {
    errors.DeclarationError: lambda: engine(every=0),
    errors.ReadError: lambda: engine(lambda nett: nett["w"].sum()),
    errors.GraphError: lambda: engine(lambda: torch.ones(())),
    errors.ParameterError: lambda: engine(module=nn.Linear(1, 1).requires_grad_(False)),
    errors.MethodError: lambda: engine(hypergradient="one-step"),
    errors.EvaluationError: lambda: engine().run(1, evaluate={"test": (lambda net: None, 1)}),
    errors.LossError: lambda: engine(lambda net: net["w"]),
    errors.ClosureError: outside,
    errors.CheckpointingError: lambda: engine(
        lambda net: checkpoint(lambda x: x.square().sum(), net["w"], use_reentrant=False)
    ),
    errors.DoubleBackwardError: twice,
    errors.ReplayError: drifting,
    errors.NonfiniteError: lambda: engine(lambda net: net["w"].sum() * torch.nan).step(),
    errors.SolveError: lambda: failing({"max_failed_solves": 1}),
    errors.DeviceError: lambda: engine(
        lambda net: net.weight.sum(), module=Stuck(1, 1), device="meta"
    ),
    errors.StreamError: lambda: engine(lambda net, data: net["w"] @ data, {"data": []}),
    errors.ConfigurationError: lambda: mlo.make_method("neuman"),
    errors.CheckpointError: lambda: engine().load("absent.pt"),
    errors.CheckError: lambda: mlo.testing.check_method(mlo.Direct()),
    errors.StationarityError: unsolvable,
}
# The engine has no data sets: what raises it are the problem libraries, tested with them.
ELSEWHERE = {errors.DataError, errors.RunFolderError, errors.CarryError}


def kinds(error):
    return {error}.union(*(kinds(kind) for kind in error.__subclasses__()))


def test_every_error_is_raised_by_one_of_these():
    defined = {e for e in vars(errors).values() if inspect.isclass(e) and issubclass(e, Exception)}
    warned = {e for e in defined if issubclass(e, Warning)}
    assert defined - warned == {mlo.MloError} | set(RAISED) | ELSEWHERE
    assert kinds(mlo.MloError) == defined - warned, "an error is defined outside `mlo.errors`"


@pytest.mark.parametrize("error", RAISED, ids=lambda e: e.__name__)
def test_the_error_is_raised_and_names_the_problem(error):
    with pytest.raises(mlo.MloError) as caught:
        RAISED[error]()
    assert type(caught.value) is error
    if issubclass(error, errors.DeclarationError | errors.EvaluationError):
        named = caught.value.problem
        assert named == "net" or error is errors.EvaluationError


def test_the_tree_in_the_documentation_of_the_errors_is_the_tree_of_classes():
    depth = {}
    for line in errors.__doc__.splitlines():
        mark, _, rest = line.partition("+-- ")
        if rest:
            depth[rest.split()[0]] = len(mark) // 5 + 1
    assert depth == {
        kind.__name__: len(kind.__mro__) - len(mlo.MloError.__mro__)
        for kind in kinds(mlo.MloError) - {mlo.MloError}
    }
