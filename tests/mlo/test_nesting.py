"""What the drawings say of nested levels, and whether a hypergradient costs what they say."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

import pytest
import torch

import mlo
from mlo.condition import Condition
from mlo.errors import DeclarationError

SIZE = 12  # parameters of each problem: more than any solver here takes products
OPTIONS = ("exact", "projected", "partial")

pytestmark = pytest.mark.filterwarnings("ignore::mlo.errors.HypergradientWarning")


def engine_of(
    reads: dict[str, Sequence[str]],
    methods: mlo.Hypergradient | dict[str, mlo.Hypergradient],
    **settings: object,
) -> mlo.Engine:
    """Convex quartics that are pulled at by whatever they read; problems lowest first."""
    draw = torch.Generator().manual_seed(0)

    def problem(name: str) -> mlo.Problem:
        offset = torch.randn(SIZE, generator=draw)
        pulls = [torch.randn(SIZE, SIZE, generator=draw) / SIZE for _ in reads[name]]

        def loss(own, *others):
            w = own["w"]
            value = 0.5 * (w - offset).square().sum() + 0.05 * (w**4).sum()
            for pull, other in zip(pulls, others, strict=True):
                value = value + w @ pull @ other["w"] + 0.02 * (w + other["w"]).pow(4).sum()
            return value

        return mlo.Problem(
            name,
            params={"w": 0.1 * torch.randn(SIZE, generator=draw)},
            loss=loss,
            reads=(name, *reads[name]),
            optimizer=lambda params: torch.optim.SGD(params, 0.1),
            hypergradient=methods if not isinstance(methods, dict) else methods.get(name),
        )

    return mlo.Engine([problem(name) for name in reads], **settings)


def nested_chain(levels: int) -> dict[str, tuple[str, ...]]:
    """Everybody reads everybody."""
    names = [f"p{i}" for i in range(levels)]
    return {n: tuple(o for o in names if o != n) for n in names}


STAGED = {
    "two": {"a": ("top",), "top": ("a",)},
    "chain": {"a": ("top",), "b": ("a", "top"), "c": ("b", "top"), "top": ("c",)},
    "diamond": {"a": ("top",), "b": ("a",), "c": ("a",), "d": ("b", "c"), "top": ("d", "a")},
}


def solver(name: str, products: int) -> mlo.Hypergradient:
    """A solver that takes exactly so many products for a solve."""
    if name == "Neumann":
        return mlo.Neumann(terms=products, alpha=0.3)
    return mlo.ConjugateGradient(iterations=products - 1, tolerance=0.0)


@pytest.fixture
def counted(monkeypatch):
    """Problem -> products with its condition since the last `clear`."""
    found: collections.Counter[str] = collections.Counter()
    plain = Condition._products

    def counting(self, u, wrt):
        found[self.problem] += 1
        return plain(self, u, wrt)

    monkeypatch.setattr(Condition, "_products", counting)
    return found


def taken(engine: mlo.Engine, counted: collections.Counter[str], name: str) -> int:
    """Products with the conditions of staged problems in one hypergradient of `name`."""
    counted.clear()
    engine.hypergradient(name)
    return sum(n for other, n in counted.items() if engine.graph.kind(other) == "staged")


METHODS = pytest.mark.parametrize("name", ["Neumann", "ConjugateGradient"])
PRODUCTS = pytest.mark.parametrize("products", [2, 4, 8])


@METHODS
@PRODUCTS
@pytest.mark.parametrize("levels", [3, 4])
@pytest.mark.parametrize("nested", ["exact", "projected"])
def test_a_nested_hypergradient_takes_at_most_the_products_that_the_graph_says(
    nested, levels, products, name, counted
):
    engine = engine_of(nested_chain(levels), solver(name, products), nested=nested)
    top = f"p{levels - 1}"
    bound = engine.graph.products(top)
    assert f"at most {bound} products" in str(engine.graph)
    found = taken(engine, counted, top)
    assert found <= bound, f"{found / bound:.2f} times the bound"
    assert found > bound / 2


@METHODS
@pytest.mark.parametrize("nested", ["exact", "projected"])
def test_five_levels_take_about_what_the_graph_says(nested, name, counted):
    engine = engine_of(nested_chain(5), solver(name, 2), nested=nested)
    about = engine.graph.products("p4")
    assert f"about {about} products" in str(engine.graph)
    assert 1.0 < taken(engine, counted, "p4") / about < 1.25


@METHODS
@PRODUCTS
@pytest.mark.parametrize("levels", [3, 4, 5])
def test_partial_answers_cost_twice_as_much_with_each_level(levels, products, name, counted):
    """Each level asks the one below once for itself and once through every level between."""
    engine = engine_of(nested_chain(levels), solver(name, products), nested="partial")
    top = f"p{levels - 1}"
    expected = products * 2 ** (levels - 2)
    assert engine.graph.products(top) == taken(engine, counted, top) == expected


@METHODS
@PRODUCTS
@pytest.mark.parametrize("table", STAGED)
def test_in_staged_programs_costs_add_up_and_are_met_exactly(table, products, name, counted):
    engine = engine_of(STAGED[table], solver(name, products))
    below = len(STAGED[table]) - 1
    expected = below * products
    assert engine.graph.products("top") == taken(engine, counted, "top") == expected
    assert f"costs: at most {expected} products" in str(engine.graph)


def test_each_method_says_what_it_costs(counted):
    methods = {
        "a": mlo.Dense(),
        "b": mlo.OneStep(),
        "c": mlo.ConjugateGradient(iterations=3, tolerance=0.0),
    }
    engine = engine_of(STAGED["chain"], methods)
    expected = (SIZE + 1) + 1 + 4
    assert engine.graph.products("top") == taken(engine, counted, "top") == expected
    (costs,) = [line.strip() for line in str(engine.graph).splitlines() if "costs" in line]
    assert costs == f"costs: at most {expected} products (responses: 1 of a, 1 of b, 1 of c)"


def test_one_product_is_singular_and_none_is_none():
    assert "costs: at most 1 product (resp" in str(engine_of(STAGED["two"], None).graph)
    direct = engine_of(STAGED["two"], mlo.Direct()).graph
    assert direct.products("top") == 0
    assert "costs: at most 0 products (resp" in str(direct)


@dataclasses.dataclass(frozen=True)
class Silent(mlo.Hypergradient):
    """Says nothing of its work."""

    differentiable = True

    def vjp(self, condition, cotangent, state):
        mixed = condition.mixed_vjp(cotangent)
        return mlo.Result(tuple(None if m is None else -m for m in mixed), state)


@pytest.mark.parametrize("who", ["p0", "p1"])
def test_where_a_method_does_not_say_the_products_are_unknown(who):
    methods = {"p0": mlo.Neumann(), "p1": mlo.Neumann(), who: Silent()}
    graph = engine_of(nested_chain(3), methods).graph
    assert graph.products("p2") is None
    lines = str(graph).splitlines()
    top = next(i for i, line in enumerate(lines) if "p2 [upper]" in line)
    costs = next(line.strip() for line in lines[top:] if "costs" in line)
    assert costs.startswith("costs: products unknown (responses: 1 of p1,")


LEFT_OUT = {
    "exact": "nothing is left out",
    "projected": "third-order terms are left out",
    "partial": "as if those below it did not answer to it",
}


@pytest.mark.parametrize("nested", OPTIONS)
def test_the_drawing_names_kinds_methods_and_what_the_option_leaves_out(nested):
    methods = {"p0": mlo.Neumann(terms=4), "p1": mlo.Dense()}
    engine = engine_of(nested_chain(3), methods, nested=nested)
    graph = engine.graph
    assert graph.nested == nested
    assert [graph.kind(n) for n in graph.names] == ["staged", "anticipating", "upper"]
    drawn = str(graph)
    heads = [line for line in drawn.splitlines() if line.startswith("level")]
    assert heads == [
        "level 2  p2 [upper]",
        "level 1  p1 [anticipating by Dense]",
        "level 0  p0 [staged by Neumann]",
    ]
    assert "anticipating: responds to those above and reads responses to itself" in drawn
    last = drawn.splitlines()[-1]
    assert last.startswith(f"nested={nested}: ")
    assert last.endswith(LEFT_OUT[nested])
    # What an anticipating problem pays for its own moves does not depend on the option.
    assert "costs: at most 4 products (responses: 1 of p0)" in drawn
    assert str(engine) == f"{graph}\n\n{engine.schedule}"
    assert "order: lowest problem first" in str(engine)


def test_the_option_changes_what_the_drawing_says_it_costs():
    costs = [engine_of(nested_chain(3), mlo.Neumann(terms=4), nested=n).graph for n in OPTIONS]
    assert costs[2].products("p2") == 8
    assert costs[0].products("p2") >= costs[1].products("p2") > 4 * costs[2].products("p2")


def test_a_staged_program_is_told_nothing_of_nested_levels():
    drawn = str(engine_of(STAGED["chain"], mlo.Dense()).graph)
    assert "nested=" not in drawn
    assert "anticipating" not in drawn


def test_the_flow_chart_names_the_kind():
    chart = engine_of(nested_chain(3), mlo.Dense()).graph.to_mermaid()
    assert 'problem_p1["p1<br/>anticipating"]' in chart
    assert "problem_p0 ==> problem_p1" in chart


@pytest.mark.parametrize(
    ("value", "hint"), [("exakt", "did you mean 'exact'"), ("full", ""), (None, ""), (True, "")]
)
def test_a_wrong_option_is_refused_with_those_there_are(value, hint):
    with pytest.raises(DeclarationError) as caught:
        engine_of(nested_chain(3), mlo.Dense(), nested=value)
    message = str(caught.value)
    assert "Engine(nested=...) must be one of 'exact', 'projected', 'partial'" in message
    assert repr(value) in message
    assert hint in message
