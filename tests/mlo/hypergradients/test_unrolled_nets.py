"""Recorded updates of networks: masks, buffers, embeddings; and updates that are off course."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mlo
from mlo.errors import HypergradientWarning

from ..oracles import relative

SGD, Adam, AdamW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW
METHODS = {"reverse": mlo.Unrolled(steps=99), "forward": mlo.ForwardMode()}
OPTIMIZERS = {
    "nesterov": lambda p: SGD(p, 0.1, momentum=0.8, nesterov=True),
    "amsgrad": lambda p: Adam(p, 0.02, amsgrad=True, eps=1e-4),
}
DRAWN = torch.Generator().manual_seed(5)
X = torch.randn(6, 8, 4, generator=DRAWN, dtype=torch.float64)
LABELS = torch.randint(0, 3, (6, 8), generator=DRAWN)
WORDS = torch.randint(0, 5, (6, 8), generator=DRAWN)


class Counting(nn.Module):
    """Draws a mask, normalizes, and counts its calls in a buffer that its output depends on."""

    def __init__(self, sparse=False):
        super().__init__()
        self.words = nn.Embedding(6, 4, sparse=sparse)
        self.first, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)
        self.second = nn.Linear(6, 3)
        self.unused = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, words):
        self.calls += 1.0
        hidden = self.norm(self.first(x + self.words(words))).tanh()
        hidden = F.dropout(hidden, 0.4, training=self.training)
        return self.scale * self.second(hidden) * (1 + self.calls.clone() / 10)


def fit(low, top, train):
    x, labels, words = train
    losses = F.cross_entropy(low(x, words), labels, reduction="none")
    return (top["weights"].sigmoid() * losses).mean() + top["decay"] * low.second.weight.pow(
        2
    ).sum()


def judge(low):
    return F.cross_entropy(low(X[0].to(low.scale.dtype), WORDS[0]), LABELS[0])


def program(
    make, method, *, shift=None, fits=fit, net=None, repeat=2, upper=0.0, probe=True, **settings
):
    torch.manual_seed(1)
    random.seed(1)
    net = Counting() if net is None else net()
    low = mlo.Problem(
        "low",
        module=net,
        loss=fits,
        optimizer=make(list(net.parameters())),
        hypergradient=method,
        repeat=repeat,
        **settings,
    )
    at = {"weights": torch.linspace(-1, 1, 8), "decay": torch.tensor(0.1)}
    at = {k: t + (shift or {}).get(k, 0.0) for k, t in at.items()}
    top = mlo.Problem("top", params=at, loss=judge, optimizer=lambda p: SGD(p, upper))
    data = {"train": list(zip(X, LABELS, WORDS, strict=True))}
    return mlo.Engine([low, top], data, guards=mlo.Guards(probe=probe))


def value(make, ticks, **settings):
    engine = program(make, None, **settings)
    for _ in range(ticks):
        engine.step()
    return judge(engine.problems["low"].module).detach()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_masks_and_buffers_are_those_of_then(name, accumulate, method):
    make, ticks, h = OPTIMIZERS[name], 3, 1e-6
    engine = program(make, METHODS[method], accumulate=accumulate)
    for _ in range(ticks):
        engine.step()
    found, (response,) = engine.total_gradient("top")
    assert response.info.outcome is mlo.Outcome.EXPLICIT
    for key, i in (("weights", 2), ("decay", None)):
        unit = torch.zeros_like(found[key])
        unit[() if i is None else i] = h
        up, down = (
            value(make, ticks, shift={key: s * unit}, accumulate=accumulate) for s in (1, -1)
        )
        entry = found[key][() if i is None else i]
        torch.testing.assert_close(entry, (up - down) / (2 * h), rtol=1e-6, atol=1e-9)


def test_sparse_embeddings_give_the_answer_of_dense_ones():
    answers = []
    for sparse in (False, True):
        net = lambda sparse=sparse: Counting(sparse)  # noqa: E731
        engine = program(lambda p: SGD(p, 0.1), METHODS["reverse"], net=net)
        for _ in range(3):
            engine.step()
        answers.append(engine.hypergradient("top"))
    assert relative(*answers) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 1e-4])
@pytest.mark.parametrize(
    "kind", [lambda p, r: SGD(p, r, momentum=0.9), Adam, lambda p, r: AdamW(p, r, fused=True)]
)
def test_rounding_is_not_off_course(kind, rate, dtype):
    torch.set_default_dtype(dtype)

    def single(low, top, train):
        return fit(low, top, (train[0].to(dtype), *train[1:]))

    engine = program(lambda p: kind(p, rate), mlo.Unrolled(steps=4), fits=single)
    for _ in range(5):
        record = engine.step()
        (response,) = next(m for m in record.moves if m.problem == "top").responses
        assert response.info.outcome is mlo.Outcome.EXPLICIT
    assert response.info.products == 4


GLOBAL = {
    "numpy": lambda x: torch.from_numpy(np.random.normal(size=x.shape)),
    "python": lambda x: torch.tensor([[random.gauss(0, 1)] for _ in x]),
}


@pytest.mark.parametrize("source", GLOBAL)
def test_random_numbers_of_the_global_generators_are_drawn_again(source):
    draw = GLOBAL[source]

    def noisy(low, top, train):
        return fit(low, top, (train[0] + 0.1 * draw(train[0]), *train[1:]))

    engine = program(OPTIMIZERS["nesterov"], mlo.Unrolled(4), fits=noisy)
    engine.step()
    engine.step()
    (response,) = engine.total_gradient("top")[1]
    assert response.info.residual < 1e-12


NUMPY, PYTHON = np.random.default_rng(3), random.Random(3)
OWN = torch.Generator().manual_seed(4)
DRAWS = {
    "numpy": lambda x: torch.from_numpy(NUMPY.normal(size=x.shape)),
    "python": lambda x: torch.tensor([[PYTHON.gauss(0, 1)] for _ in x]),
    "a generator of its own": lambda x: torch.randn(x.shape, generator=OWN),
}


@pytest.mark.parametrize("project", [None, lambda w: {"scale": w["scale"].clamp(-2, 2)}])
@pytest.mark.parametrize("source", DRAWS)
def test_random_numbers_that_are_not_drawn_again_are_off_course(source, project):
    draw = DRAWS[source]

    def noisy(low, top, train):
        return fit(low, top, (train[0] + 0.1 * draw(train[0]), *train[1:]))

    engine = program(
        OPTIMIZERS["nesterov"], mlo.Unrolled(), fits=noisy, project=project, probe=False
    )
    engine.step()
    with pytest.warns(HypergradientWarning, match=r"'low' by Unrolled.*global generators"):
        engine.hypergradient("top")
    (response,) = engine.total_gradient("top")[1]
    assert response.info.outcome is mlo.Outcome.OFF_COURSE
    assert 1e-3 < response.info.residual < 10


@pytest.mark.parametrize("project", [None, lambda w: {"scale": w["scale"].clamp(-2, 2)}])
@pytest.mark.parametrize("steps", [3, 4])
def test_parameters_that_are_written_to_between_ticks_are_off_course(steps, project):
    engine = program(OPTIMIZERS["amsgrad"], mlo.Unrolled(steps), repeat=3, project=project)
    engine.step()
    with torch.no_grad():
        engine.problems["low"].module.first.weight[0, 0] += 0.5
    engine.step()
    (response,) = engine.total_gradient("top")[1]
    # Of three steps all were made since.
    off = steps == 4
    outcome = mlo.Outcome.OFF_COURSE if off else mlo.Outcome.EXPLICIT
    assert response.info.outcome is outcome
    assert (response.info.residual > 1e-1) == off


@pytest.mark.parametrize("steps", [1, 3])
def test_parameters_that_are_written_to_after_the_last_update_are_off_course(steps):
    engine = program(OPTIMIZERS["nesterov"], mlo.Unrolled(steps))
    engine.step()
    assert engine.total_gradient("top")[1][0].info.residual < 1e-12
    with torch.no_grad():
        engine.problems["low"].module.first.weight.fill_(5.0)
    (response,) = engine.total_gradient("top")[1]
    assert response.info.outcome is mlo.Outcome.OFF_COURSE
