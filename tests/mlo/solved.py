"""Losses whose minimizers are known, for tests of `mlo.solution`."""

from __future__ import annotations

import pytest
import torch

import mlo

from .oracles import gradient, root

METHODS = {
    "Dense": mlo.Dense(),
    # More iterations than any problem here has parameters.
    "ConjugateGradient": mlo.ConjugateGradient(iterations=40, tolerance=1e-14),
    # Curvatures lie between 0.3 and 2 / 0.12 here.
    "Neumann": mlo.Neumann(terms=2000, alpha=0.12, tolerance=1e-12),
}
METHOD = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
# What remains are rounding and, for the iterative methods, their tolerance.
EXACT = {"rtol": 1e-9, "atol": 1e-10}

X = torch.randn(8, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Y = torch.randn(8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def ridge(w, c):
    """Its minimizer and all of its derivatives are known; H depends on the context itself."""
    return 0.5 * (X @ w - c["target"]).square().mean() + 0.5 * (c["log"].exp() * w.square()).sum()


def ridge_solution(c):
    """The closed form, which autograd differentiates as often as one likes."""
    normal = X.T @ X / len(X) + torch.diag(c["log"].exp())
    return torch.linalg.solve(normal, X.T @ c["target"] / len(X))


def ridge_context():
    return {
        "log": torch.tensor([0.3, -0.2, 0.5], requires_grad=True),
        "target": Y.clone().requires_grad_(),
    }


def curved(w, c):
    """Not quadratic in anything, with curvatures between 1 and 4 near its minimum."""
    pull, scale = c
    return (
        (scale.exp() * w.square()).sum()
        + 0.1 * (w**4).sum()
        + 0.3 * torch.sin(w + pull).sum()
        - (w * pull).sum()
    )


def curved_solution(*c):
    """Found without a graph."""
    fixed = tuple(t.detach() for t in c)
    return root(lambda w: gradient(curved(w, fixed), w), torch.zeros(3))


CURVED = (torch.tensor([0.4, -0.7, 1.1]).double(), torch.tensor(0.2).double())


def fresh(tensors=CURVED):
    return tuple(t.clone().requires_grad_() for t in tensors)


def slope(w):
    return torch.sin(w).sum() + w.square().sum()
