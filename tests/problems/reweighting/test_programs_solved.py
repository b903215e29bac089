"""Programs whose classifiers are solved: implicit methods against the program solved again."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call

import mlo
from mlo.errors import CheckError
from mlo.testing import check_hypergradient

from .by_hand import error, leaves
from .programs import UPPERS, N, engine_of, streams

METHODS = {
    "dense": mlo.Dense(),
    "conjugate-gradient": mlo.ConjugateGradient(iterations=40, tolerance=1e-12),
    "neumann": mlo.Neumann(terms=700, alpha=4.0, tolerance=1e-4),
}
PROGRAMS = [
    ("learned", {}),
    ("learned", {"unit_mean": True}),
    ("l2rw", {}),
    ("lfm", {}),
    ("lfm", {"unit_mean": True, "constant": ("learner",)}),
]


def placed(name, method, **options):
    engine = engine_of(name, method, lookahead=False, **options)
    if name == "l2rw":  # somewhere with curvature
        with torch.no_grad():
            engine.problems["weights"].module["epsilon"].copy_(torch.linspace(0.5, 1.5, N) / N)
    return engine


@pytest.mark.parametrize(("name", "options"), PROGRAMS, ids=str)
def test_the_gradient_is_the_difference_of_the_solved_program(name, options):
    engine = placed(name, METHODS["dense"], **options)
    found = check_hypergradient(
        engine, UPPERS[name], against="solution", tolerance=1e-7, bias=0.0, count=4
    )
    assert found.resolution < 1e-8


def solve(engine):
    """Newton's method for every classifier, the lowest first, on its own loss."""
    for name in [n for n in engine.problems if n not in UPPERS.values()]:
        module = engine.problems[name].module
        for _ in range(30):
            params = {k: p.detach() for k, p in module.named_parameters()}
            gradient, hessian = _second(engine, name, params)
            move = torch.linalg.solve(hessian, gradient)
            with torch.no_grad():
                for p, part in zip(
                    module.parameters(),
                    move.split([p.numel() for p in params.values()]),
                    strict=True,
                ):
                    p.sub_(part.view_as(p))
        assert gradient.norm() < 1e-13, name


def _second(engine, name, params):
    flat = torch.cat([p.flatten() for p in params.values()]).requires_grad_()
    sizes = [p.numel() for p in params.values()]
    parts = {
        k: part.view_as(p) for (k, p), part in zip(params.items(), flat.split(sizes), strict=True)
    }
    problem = engine.problems[name]

    def own(x):
        return functional_call(problem.module, parts, (x,))

    reads = {n: p.module for n, p in engine.problems.items()} | {
        k: batch[0] for k, batch in streams().items()
    }
    loss = problem.loss(*[own if n == name else reads[n] for n in problem.reads.names])
    loss = loss[0] if isinstance(loss, tuple) else loss
    (gradient,) = torch.autograd.grad(loss, flat, create_graph=True)
    rows = [torch.autograd.grad(g, flat, retain_graph=True)[0] for g in gradient]
    return gradient.detach(), torch.stack(rows)


@pytest.mark.parametrize("kind", ["conjugate-gradient", "neumann"])
@pytest.mark.parametrize("name", ["learned", "l2rw", "lfm"])
def test_iterative_methods_agree_with_the_dense_one_at_the_solution(name, kind):
    found = []
    for method in (METHODS["dense"], METHODS[kind]):
        engine = placed(name, method)
        solve(engine)
        found.append(engine.hypergradient(UPPERS[name]))
    # The slowest part of the series falls by 1 - 4 * 0.0036 with every term.
    assert error(found[1], found[0]) < (1e-10 if kind == "conjugate-gradient" else 1e-4)
    assert all(value.norm() > 1e-6 for value in found[0].values())


def test_of_meta_weight_net_the_weights_are_numbers_in_the_hessian_too():
    """What a solve gives is -(dg/dtheta)^T H^-1 v with H = (1/n) sum_i V_i times that of l_i."""
    engine = placed("meta-weight-net", mlo.Dense())
    net, upper = engine.problems["classifier"].module, engine.problems["weight_net"].module
    data = {k: batch[0] for k, batch in streams().items()}
    params, theta = leaves(net), leaves(upper)

    def each(values, key):
        logits = functional_call(net, values, (data[key][0],))
        return torch.nn.functional.cross_entropy(logits, data[key][1], reduction="none")

    own = list(params.values())
    losses = each(params, "train")
    weights = functional_call(upper, theta, (losses.detach()[:, None],))[:, 0]
    flat = torch.cat(
        [
            g.flatten()
            for g in torch.autograd.grad((weights * losses).mean(), own, create_graph=True)
        ]
    )
    rows = [torch.autograd.grad(g, own, retain_graph=True) for g in flat]
    hessian = torch.stack([torch.cat([r.flatten() for r in row]) for row in rows])
    torch.testing.assert_close(hessian, hessian.T)
    outer = torch.autograd.grad(each(params, "valid").mean(), own)
    adjoint = torch.linalg.solve(hessian, torch.cat([g.flatten() for g in outer]))
    grads = torch.autograd.grad(-(flat * adjoint).sum(), list(theta.values()))
    want = dict(zip(theta, grads, strict=True))
    assert error(engine.hypergradient("weight_net"), want) < 1e-10


def test_of_meta_weight_net_a_check_says_that_something_is_detached():
    with pytest.raises(CheckError, match=r"wrong loss: problem 'classifier'.*detached"):
        check_hypergradient(placed("meta-weight-net", mlo.Dense()), "weight_net")
