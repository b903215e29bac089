"""Problems on one level: what the graph says of them, and nestings that are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mlo
from mlo.errors import DeclarationError, GraphError, MethodError

from .test_levels import MUTUAL, ONE_WAY, PEERS, SHARED, UPPERS, engine_of


def test_a_graph_of_levels_says_so():
    engine, _ = engine_of(MUTUAL, PEERS)
    graph = engine.graph
    assert [graph.level[n] for n in ("a", "b", "top")] == [0, 0, 1]
    assert [graph.kind(n) for n in ("a", "b", "top")] == ["staged", "staged", "upper"]
    assert graph.peers("a") == ("b",)
    assert graph.peers("top") == ()
    text = str(graph)
    assert "level 1  top [upper]" in text
    assert "level 0  b [staged by OneStep]" in text
    assert "level 0  a [staged by OneStep]" in text
    assert "<- b (same level; constant)" in text
    assert "<- a (same level; constant)" in text
    drawn = graph.to_networkx()
    assert {n: d["level"] for n, d in drawn.nodes(data=True)} == {"a": 0, "b": 0, "top": 1}
    assert {(i, j): d["response"] for i, j, d in drawn.edges(data=True)} == {
        ("a", "b"): False,
        ("b", "a"): False,
        ("top", "a"): False,
        ("top", "b"): False,
        ("a", "top"): True,
        ("b", "top"): True,
    }
    chart = graph.to_mermaid()
    assert "problem_a --> problem_b" in chart
    assert "problem_a ==> problem_top" in chart


def test_uppers_of_one_level_are_uppers_and_those_on_two_anticipate():
    kinds = {}
    for name, nest in {"one": UPPERS, "two": ["low", "one", "two"]}.items():
        graph = engine_of(SHARED, nest, mlo.Dense())[0].graph
        kinds[name] = [graph.kind(n) for n in ("low", "one", "two")]
    assert kinds["one"] == ["staged", "upper", "upper"]
    assert kinds["two"] == ["staged", "anticipating", "upper"]


def test_an_implicit_read_of_a_peer_is_drawn_as_a_response_to_those_above():
    graph = engine_of(ONE_WAY, PEERS, mlo.Dense())[0].graph
    assert "<~ b (response to top; constant to a itself)" in str(graph)
    assert "problem_b ==> problem_a" in graph.to_mermaid()
    assert graph.to_networkx().edges["b", "a"]["response"] is False


class Centred(nn.Module):
    """Subtracts a running mean, and counts the input in afterwards."""

    def __init__(self, weight, counts):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.register_buffer("mean", torch.tensor(0.5))
        self.rate = 0.5 if counts else 0.0

    def forward(self, x):
        out = self.weight * (x - self.mean)
        self.mean.lerp_(x, self.rate)
        return out


def fit_a(a, b, data):
    return (a(data) - b(data) - 1).square()


def fit_b(b, a, data):
    return (b(data) + a(data) - 2).square()


@pytest.mark.parametrize("buffers", [False, True], ids=["parameters", "buffers"])
def test_the_order_within_a_level_does_not_matter(buffers):
    """What a problem sees of another is where it stood, running statistics included."""
    ends = []
    for order in (("a", "b"), ("b", "a")):
        nets = {"a": Centred(1.0, buffers), "b": Centred(2.0, buffers)}
        problems = {
            name: mlo.Problem(
                name,
                module=net,
                loss={"a": fit_a, "b": fit_b}[name],
                optimizer=torch.optim.SGD(net.parameters(), 0.1),
            )
            for name, net in nets.items()
        }
        data = {"data": [torch.tensor(3.0), torch.tensor(1.0)]}
        engine = mlo.Engine([[problems[name] for name in order]], data)
        for _ in range(3):
            engine.step()
        ends.append({name: net.state_dict() for name, net in nets.items()})
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)


def test_mutual_reads_are_refused_by_conjugate_gradients_which_take_symmetry_for_granted():
    message = r"'a': 'a', 'b' on one level read each other.*ConjugateGradient.*OneStep"
    with pytest.raises(MethodError, match=message):
        engine_of(MUTUAL, PEERS, mlo.ConjugateGradient())
    # A cut makes it one way.
    engine, _ = engine_of(
        MUTUAL, PEERS, mlo.ConjugateGradient(), constant={"b": ["a"]}, dry_run=False
    )
    assert engine.graph.context("b") == ("top",)
    assert engine.graph.groups("top") == (("b",), ("a",))


def alone(name, *reads):
    def loss(*given):
        return sum(own["w"].square().sum() for own in given)

    return mlo.Problem(
        name,
        params={"w": torch.ones(1)},
        loss=loss,
        reads=(name, *reads),
        optimizer=lambda params: torch.optim.SGD(params, 0.1),
    )


def test_wrong_nestings_are_refused():
    a, b, c = alone("a", "c"), alone("b", "a"), alone("c", "a", "b")
    with pytest.raises(DeclarationError, match="found list in it"):
        mlo.Engine([[a, [b]], c])
    with pytest.raises(DeclarationError, match="found set in it"):
        mlo.Engine([{a, b}, c])
    with pytest.raises(DeclarationError, match="found str in it"):
        mlo.Engine([["a", b], c])
    with pytest.raises(GraphError, match="two problems are called 'a'"):
        mlo.Engine([[a, b, a], c])
    with pytest.raises(GraphError, match="two problems are called 'a'"):
        mlo.Engine([[a, b], a, c])
    with pytest.raises(DeclarationError, match="nothing to do"):
        mlo.Engine([[], []])
    with pytest.raises(GraphError, match="'d' neither reads another problem nor is read"):
        mlo.Engine([[a, b, alone("d")], c])


def test_tuples_nest_as_lists_do_and_a_level_may_hold_one():
    a, b, c = alone("a", "c"), alone("b", "a"), alone("c", "a", "b")
    assert mlo.Engine(((a, b), (c,))).graph.level == {"a": 0, "b": 0, "c": 1}
    assert mlo.Engine([[a], [b], c]).graph.level == mlo.Engine([a, b, c]).graph.level
