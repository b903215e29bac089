"""Sparse gradients of embeddings."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mlo

from .small import LOOKAHEAD, sgd, two

WORDS = torch.tensor([0, 2, 2, 1])


SPARSE = [
    mlo.OneStep(),
    mlo.FiniteDifference(),
    mlo.FiniteDifference(scheme="forward"),
    mlo.Neumann(),
    mlo.ConjugateGradient(),
    mlo.Dense(damping=0.1),  # rows that are not looked up have no curvature
]


def embedding(sparse):
    torch.manual_seed(5)
    return nn.Embedding(5, 3, sparse=sparse)


def look(net, top):
    return (net(WORDS) * top["a"].exp()).square().sum() + net(WORDS).sum()


def compare(net, top):
    return (net(WORDS) - 1).square().sum() + top["a"].square()


@pytest.mark.parametrize("method", SPARSE, ids=lambda m: str(m)[:40])
@LOOKAHEAD
def test_sparse_gradients_give_the_answer_of_dense_ones(method, lookahead):
    answers = [
        two(
            embedding(sparse),
            {"loss": look, "hypergradient": method},
            {"loss": compare},
            lookahead=lookahead,
        ).hypergradient("top")["a"]
        for sparse in (False, True)
    ]
    # The order of additions differs; a finite difference of radius 0.01 magnifies it.
    torch.testing.assert_close(*answers, rtol=1e-11, atol=0)


OPTIMIZERS = {
    "SGD": sgd,
    "momentum": lambda params: torch.optim.SGD(params, 0.1, momentum=0.9),
    "SparseAdam": lambda params: torch.optim.SparseAdam(params, 0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_sparse_moves_are_those_of_plain_torch_and_the_record_has_their_norm(name):
    net, plain = embedding(True), embedding(True)

    def loss(net):
        return net(WORDS).square().sum() + net(WORDS).sum()

    engine = mlo.Engine([mlo.Problem("net", module=net, loss=loss, optimizer=OPTIMIZERS[name])])
    optimizer = OPTIMIZERS[name](list(plain.parameters()))
    for _ in range(3):
        optimizer.zero_grad()
        loss(plain).backward()
        length = plain.weight.grad.to_dense().norm()
        found = engine.step().moves[0].gradient_norm
        # A word that is looked up twice has two entries, which have to be added first.
        torch.testing.assert_close(found, length, rtol=1e-14, atol=0)
        optimizer.step()
        assert torch.equal(net.weight, plain.weight)
