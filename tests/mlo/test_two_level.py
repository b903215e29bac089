"""Two-level programs against closed forms and central differences of the re-solved program."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mlo

from .oracles import Level, engine_of, flat, gradient, relative, resolved_answer, solved, starts
from .programs import KINDS, program

METHODS = {
    "dense": mlo.Dense(),
    # More iterations than any of these problems has parameters.
    "conjugate gradients": mlo.ConjugateGradient(iterations=40, tolerance=1e-13),
}


def spectral(n: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """A positive definite matrix, its eigenvalues from 0.1 to 4, and its eigenvectors."""
    vectors, _ = torch.linalg.qr(torch.randn(n, n))
    mu = torch.logspace(-1, 0.6, n)
    return vectors @ torch.diag(mu) @ vectors.T, mu, vectors


class Quadratic:
    """f = w'Hw/2 - w'(Bx + b),  F = |w - t|^2/2 + w'Cx + |x|^2/4."""

    def __init__(self) -> None:
        self.H, self.mu, self.vectors = spectral()
        self.B, self.C = torch.randn(6, 3), torch.randn(6, 3)
        self.b, self.t = torch.randn(6), torch.randn(6)
        self.x = torch.randn(3)
        self.solution = torch.linalg.solve(self.H, self.B @ self.x + self.b)
        self.cotangent = self.solution - self.t + self.C @ self.x
        self.direct = self.C.T @ self.solution + self.x / 2

    def low(self, low, top):
        w = flat(low)
        return w @ self.H @ w / 2 - w @ (self.B @ top["x"] + self.b)

    def top(self, low, top):
        w, x = flat(low), top["x"]
        return (w - self.t).square().sum() / 2 + w @ self.C @ x + x.square().sum() / 4

    def answer(self, adjoint: Tensor) -> Tensor:
        """h = dF/dx + B'u, since dg/dx = -B."""
        return self.direct + self.B.T @ adjoint

    def hypergradient(self, method, rates=(0.1, 0.1)) -> Tensor:
        """By the engine, at the solution, in two parameters with learning rates of their own."""
        low = mlo.Problem(
            "low",
            params={"a": self.solution[:2], "b": self.solution[2:].reshape(2, 2)},
            loss=self.low,
            optimizer=lambda ps: torch.optim.SGD(
                [{"params": [p], "lr": lr} for p, lr in zip(ps, rates, strict=True)]
            ),
            hypergradient=method,
        )
        top = mlo.Problem(
            "top",
            params={"x": self.x},
            loss=self.top,
            optimizer=lambda ps: torch.optim.SGD(ps, 0.1),
        )
        return mlo.Engine([low, top]).hypergradient("top")["x"]


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    assert float((found - expected).norm() / expected.norm()) < tolerance


@pytest.mark.parametrize("method", METHODS)
def test_a_quadratic_program_has_the_closed_form(method):
    case = Quadratic()
    expected = case.answer(torch.linalg.solve(case.H, case.cotangent))
    # Rounding, times a condition number of 40.
    close(case.hypergradient(METHODS[method]), expected, 1e-11)


@pytest.mark.parametrize("terms", [1, 2, 5, 20, 100])
@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.45])
def test_neumann_misses_the_closed_form_by_its_known_factor(terms, alpha):
    case = Quadratic()
    found = case.hypergradient(mlo.Neumann(terms=terms, alpha=alpha))
    adjoint = torch.linalg.solve(case.H, case.cotangent)
    factors = (1 - alpha * case.mu) ** terms
    error = case.vectors @ (factors * (case.vectors.T @ adjoint))
    close(found, case.answer(adjoint - error))
    close(case.answer(adjoint) - found, case.B.T @ error, 1e-9)


@pytest.mark.parametrize("terms", [1, 3, 30])
@pytest.mark.parametrize("rates", [(0.1, 0.1), (0.4, 0.05)])
def test_neumann_takes_the_learning_rates_of_the_parameter_groups(terms, rates):
    case = Quadratic()
    alpha = torch.diag(torch.tensor([rates[0]] * 2 + [rates[1]] * 4))
    power = torch.linalg.matrix_power(torch.eye(6) - alpha @ case.H, terms)
    adjoint = torch.linalg.solve(case.H, case.cotangent)
    found = case.hypergradient(mlo.Neumann(terms=terms), rates)
    close(found, case.answer(adjoint - power @ adjoint))


def test_neumann_follows_a_scheduled_learning_rate():
    case = Quadratic()
    low = mlo.Problem(
        "low",
        params={"w": case.solution},
        loss=case.low,
        optimizer=lambda ps: torch.optim.SGD(ps, 0.4),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5),
        hypergradient=mlo.Neumann(terms=1),
    )
    top = mlo.Problem(
        "top",
        params={"x": case.x},
        loss=case.top,
        optimizer=lambda ps: torch.optim.SGD(ps, 0.1),
    )
    engine = mlo.Engine([low, top])
    # The moves of three ticks were made at 0.4, 0.2 and 0.1, and the solution stays the solution.
    for rate in (0.4, 0.2, 0.1):
        before = top.module["x"].detach().clone()
        w = low.module["w"].detach() - rate * (case.H @ low.module["w"].detach())
        w = w + rate * (case.B @ before + case.b)
        engine.step()
        cotangent = w - case.t + case.C @ before
        expected = case.C.T @ w + before / 2 + case.B.T @ (rate * cotangent)
        close((before - top.module["x"].detach()) / 0.1, expected, 1e-11)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shared", [True, False], ids=["one decay", "a decay for every weight"])
def test_ridge_regression_with_learned_decay(shared, method):
    """w(d) = (X'X + diag(e^d))^{-1} X'y is differentiated by autograd for comparison."""
    x, y, xv, yv = torch.randn(12, 5), torch.randn(12), torch.randn(9, 5), torch.randn(9)
    decay = torch.tensor(-0.5) if shared else torch.randn(5)

    def solve(d: Tensor) -> Tensor:
        return torch.linalg.solve(x.T @ x + torch.diag(d.exp().expand(5)), x.T @ y)

    def train_loss(model, decay, train):
        x, y = train
        (w,) = model.parameters()
        return (model(x)[:, 0] - y).square().sum() / 2 + (decay["log"].exp() * w**2).sum() / 2

    def valid_loss(model, valid):
        return (model(valid[0])[:, 0] - valid[1]).square().mean()

    model = nn.Linear(5, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(solve(decay))
    problems = [
        mlo.Problem(
            "model",
            module=model,
            loss=train_loss,
            optimizer=torch.optim.SGD(model.parameters(), 0.01),
            hypergradient=METHODS[method],
        ),
        mlo.Problem(
            "decay",
            params={"log": decay},
            loss=valid_loss,
            optimizer=lambda ps: torch.optim.SGD(ps, 0.1),
        ),
    ]
    engine = mlo.Engine(problems, data={"train": [(x, y)], "valid": [(xv, yv)]})
    d = decay.clone().requires_grad_()
    expected = gradient((xv @ solve(d) - yv).square().mean(), d, graph=False)
    assert relative(engine.hypergradient("decay"), {"log": expected}) < 1e-11


def logistic() -> list[Level]:
    """Weighted logistic regression of 3 classes; example weights and decay are learned."""
    x, t = torch.randn(14, 4), torch.randint(0, 3, (14,))
    xv, tv = torch.randn(11, 4), torch.randint(0, 3, (11,))

    def low(low, top):
        losses = F.cross_entropy(x @ low["w"] + low["b"], t, reduction="none")
        decay = top["decay"].exp() * (low["w"].square().sum() + low["b"].square().sum())
        return (torch.sigmoid(top["weights"]) * losses).mean() + decay

    def top(low, top):
        loss = F.cross_entropy(xv @ low["w"] + low["b"], tv)
        return loss + 0.01 * top["weights"].square().sum()

    weights = {"weights": torch.randn(14), "decay": torch.tensor(-2.5)}
    return [
        Level("low", low, {"w": torch.zeros(4, 3), "b": torch.zeros(3)}),
        Level("top", top, weights),
    ]


def bent(kind: str, judged: bool) -> list[Level]:
    reads = {"low": ("top",), "top": ("low",)}
    return program(reads, [kind], judges=("top",) if judged else (), seed=7)


CASES = {
    "logistic": logistic,
    **{kind: lambda kind=kind: bent(kind, False) for kind in KINDS},
    **{f"{kind}, judged": lambda kind=kind: bent(kind, True) for kind in KINDS},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CASES)
def test_it_is_the_slope_of_the_resolved_program(case, method):
    levels = CASES[case]()
    values = solved(levels, starts(levels), ["low"])
    found = engine_of(levels, values, METHODS[method]).hypergradient("top")
    # Fourth-order differences of solutions that are good to 1e-12.
    assert relative(found, resolved_answer(levels, values, "top")) < 1e-8


@pytest.mark.parametrize("lookahead", [False, True])
def test_implicit_methods_take_the_moved_parameters_as_the_solution(lookahead):
    levels = bent("trigonometric", judged=False)
    values = starts(levels)
    engine = engine_of(levels, values, mlo.Dense(), lookahead=lookahead)
    w = {k: t.clone().requires_grad_() for k, t in values["low"].items()}
    loss = levels[0].at({**values, "low": w})
    if lookahead:
        w = {k: (t - 0.1 * gradient(loss, t)).detach().requires_grad_() for k, t in w.items()}
    own, x = flat(w).detach().requires_grad_(), flat(values["top"]).requires_grad_()
    like = (values["low"], values["top"])

    def at(level: Level, w: Tensor, x: Tensor) -> Tensor:
        sizes = [[t.numel() for t in params.values()] for params in like]
        parts = [
            {k: p.reshape(t.shape) for (k, t), p in zip(params.items(), v.split(n), strict=True)}
            for params, v, n in zip(like, (w, x), sizes, strict=True)
        ]
        return level.at({"low": parts[0], "top": parts[1]})

    blocks = torch.autograd.functional.hessian(lambda w, x: at(levels[0], w, x), (own, x))
    upper = at(levels[1], own, x)
    adjoint = torch.linalg.solve(blocks[0][0], gradient(upper, own, graph=False))
    expected = gradient(upper, x, graph=False) - blocks[0][1].T @ adjoint
    close(flat(engine.hypergradient("top")), expected, 1e-11)
