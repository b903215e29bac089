"""LFM's hypergradient by `OneStep` against full differentiation through both optimizer steps.

A small convolutional net with BatchNorm for learner, relearner and encoder; a mixing weight `a`
that all three losses read (as an architecture does), so that the mistakes depend on upper
parameters directly; coefficients `r`; stage-1 weights `b` by example. The reference below is plain
autograd through hand-written optimizer formulas: nothing of the engine is in it.
"""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

import mlo

N, M, CLASSES = 6, 5, 3
TOLERANCE = 1e-8


class Net(nn.Module):
    """Two mixed operations, BatchNorm, a smooth head."""

    def __init__(self, out):
        super().__init__()
        self.one = nn.Conv2d(1, 4, 3, padding=1)
        self.two = nn.Conv2d(1, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, out)

    def forward(self, x, mix=None):
        mix = torch.zeros(2) if mix is None else mix
        share = mix.softmax(0)
        x = self.norm(share[0] * self.one(x) + share[1] * self.two(x)).tanh()
        return self.head(x.mean((2, 3)))


class Upper(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Net(4)
        self.a = nn.Parameter(torch.randn(2) * 0.3)
        self.r = nn.Parameter(torch.ones(M) + 0.1 * torch.randn(M))
        self.b = nn.Parameter(torch.ones(N) + 0.1 * torch.randn(N))


def example_weights(encoder, r, learner_logits, train, valid):
    (x, t), (xv, tv) = train, valid
    similarity = (encoder(x) @ encoder(xv).T).softmax(1)
    same = (t[:, None] == tv[None]).to(x.dtype)
    mistakes = F.cross_entropy(learner_logits, tv, reduction="none")
    return torch.sigmoid((similarity * same * mistakes) @ r)


def learn(learner, validator, train):
    x, t = train
    return (validator.b * F.cross_entropy(learner(x, validator.a), t, reduction="none")).mean()


def relearn(relearner, learner, validator, train, valid):
    x, t = train
    logits = learner(valid[0], validator.a)
    weights = example_weights(validator.encoder, validator.r, logits, train, valid)
    return (weights * F.cross_entropy(relearner(x, validator.a), t, reduction="none")).mean()


def validate(relearner, validator, valid):
    return F.cross_entropy(relearner(valid[0], validator.a), valid[1])


def sgd_step(params, grads, group, state):
    """PyTorch's SGD, differentiable: weight decay, momentum, dampening, Nesterov."""
    new = {}
    for k, p in params.items():
        g = grads[k] + group(k).get("weight_decay", 0.0) * p
        mu = group(k).get("momentum", 0.0)
        if mu:
            old = state[k].get("momentum_buffer") if state else None
            buffer = g if old is None else mu * old + (1 - group(k).get("dampening", 0.0)) * g
            g = g + mu * buffer if group(k).get("nesterov") else buffer
        new[k] = p - group(k)["lr"] * g
    return new


def adam_step(params, grads, group, state, decoupled=False):
    """Adam and AdamW, differentiable."""
    new = {}
    for k, p in params.items():
        lr, (b1, b2), decay = group(k)["lr"], (0.9, 0.999), group(k).get("weight_decay", 0.0)
        g = grads[k] if decoupled else grads[k] + decay * p
        kept = p * (1 - lr * decay) if decoupled else p
        old = state[k] if state else {"exp_avg": 0.0, "exp_avg_sq": 0.0, "step": 0}
        t = float(old["step"]) + 1
        m = b1 * old["exp_avg"] + (1 - b1) * g
        s = b2 * old["exp_avg_sq"] + (1 - b2) * g**2
        # A gradient may be exactly zero, where autograd would make NaN of the square root.
        root = torch.where(s > 0, (s / (1 - b2**t)).clamp_min(1e-300).sqrt(), 0.0)
        new[k] = kept - lr / (1 - b1**t) * m / (root + 1e-8)
    return new


OPTIMIZERS = {
    "sgd": (lambda ps: torch.optim.SGD(ps, 0.3), sgd_step),
    "momentum": (lambda ps: torch.optim.SGD(ps, 0.2, momentum=0.9, dampening=0.3), sgd_step),
    "nesterov": (
        lambda ps: torch.optim.SGD(ps, 0.2, momentum=0.8, nesterov=True, weight_decay=1e-2),
        sgd_step,
    ),
    "groups": (
        lambda ps: torch.optim.SGD(
            [{"params": ps[:2], "lr": 0.5, "weight_decay": 0.1}, {"params": ps[2:]}],
            0.1,
            momentum=0.5,
        ),
        sgd_step,
    ),
    "adam": (lambda ps: torch.optim.Adam(ps, 0.05, weight_decay=1e-2), adam_step),
    "adamw": (
        lambda ps: torch.optim.AdamW(ps, 0.05, weight_decay=0.1),
        lambda *args: adam_step(*args, decoupled=True),
    ),
}


def batches():
    generator = torch.Generator().manual_seed(3)

    def draw(n):
        x = torch.randn(n, 1, 6, 6, generator=generator)
        return x, torch.randint(0, CLASSES, (n,), generator=generator)

    train = [(draw(N)) for _ in range(3)]
    valid = [(draw(M)) for _ in range(3)]
    return train, valid


def program(make, **options):
    torch.manual_seed(11)
    learner, relearner, upper = Net(CLASSES), Net(CLASSES), Upper()
    train, valid = batches()
    problems = [
        mlo.Problem(
            "learner",
            module=learner,
            loss=learn,
            optimizer=make(list(learner.parameters())),
        ),
        mlo.Problem(
            "relearner",
            module=relearner,
            loss=relearn,
            optimizer=make(list(relearner.parameters())),
            updates_buffers=("validator",),
        ),
        mlo.Problem(
            "validator",
            module=upper,
            loss=validate,
            optimizer=torch.optim.Adam(upper.parameters(), 1e-2),
        ),
    ]
    return mlo.Engine(problems, data={"train": train, "valid": valid}, lookahead=True, **options)


def named_state(problem):
    """Group and state of every parameter, by name."""
    names = {id(p): k for k, p in problem.module.named_parameters()}
    groups = {names[id(p)]: g for g in problem.optimizer.param_groups for p in g["params"]}
    state = {names[id(p)]: copy.deepcopy(v) for p, v in problem.optimizer.state.items()}
    return groups.__getitem__, state


def reference(engine, rule, train, valid):
    """Both steps unrolled, then one backward to every upper parameter."""
    modules = {name: copy.deepcopy(p.module) for name, p in engine.problems.items()}
    leaves = {
        name: {k: p.detach().clone().requires_grad_() for k, p in m.named_parameters()}
        for name, m in modules.items()
    }
    upper = leaves["validator"]

    def call(name, params, *args):
        buffers = {k: b.clone() for k, b in modules[name].named_buffers()}
        return functional_call(modules[name], {**params, **buffers}, args)

    def encode(x):
        params = {k.removeprefix("encoder."): v for k, v in upper.items() if "encoder" in k}
        encoder = modules["validator"].encoder
        buffers = {k: b.clone() for k, b in encoder.named_buffers()}
        return functional_call(encoder, {**params, **buffers}, (x,))

    def stepped(name, loss):
        params = leaves[name]
        grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        group, state = named_state(engine.problems[name])
        return rule(params, dict(zip(params, grads, strict=True)), group, state)

    (x, t), (xv, tv) = train, valid
    logits = call("learner", leaves["learner"], x, upper["a"])
    w1 = stepped("learner", (upper["b"] * F.cross_entropy(logits, t, reduction="none")).mean())
    mistakes = call("learner", w1, xv, upper["a"])
    weights = example_weights(encode, upper["r"], mistakes, train, valid)
    logits = call("relearner", leaves["relearner"], x, upper["a"])
    w2 = stepped("relearner", (weights * F.cross_entropy(logits, t, reduction="none")).mean())
    loss = F.cross_entropy(call("relearner", w2, xv, upper["a"]), tv)
    grads = torch.autograd.grad(loss, list(upper.values()))
    return dict(zip(upper, grads, strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("ticks", [0, 2])
@pytest.mark.parametrize("retain", [True, False])
def test_lfm_gradient_equals_full_differentiation(name, ticks, retain):
    make, rule = OPTIMIZERS[name]
    engine = program(make, retain=retain)
    for _ in range(ticks):
        engine.step()
    train, valid = batches()
    latest = max(ticks - 1, 0)
    expected = reference(engine, rule, train[latest], valid[latest])
    found = engine.hypergradient("validator")
    assert found.keys() == expected.keys()
    for key, want in expected.items():
        scale = want.norm().clamp_min(1e-12)
        error = (found[key] - want).norm() / scale
        # Biases in front of BatchNorm have a true gradient of zero: rounding is all there is.
        assert error < TOLERANCE or want.norm() < 1e-15, (key, float(error))
    # The first step of Adam hardly depends on the size of the gradient, so these may be small.
    for key in ("a", "r", "b", "encoder.one.weight"):
        assert expected[key].norm() > 1e-15, key


def test_real_step_uses_the_same_gradient():
    """The validator's own move under look-ahead is made with the gradient checked above."""
    make, rule = OPTIMIZERS["momentum"]
    engine = program(make)
    engine.step()
    before = copy.deepcopy(engine.problems["validator"].module.state_dict())
    train, valid = batches()
    expected = reference(engine, rule, train[1], valid[1])
    group, state = named_state(engine.problems["validator"])
    engine.step()
    params = {k: before[k] for k in expected}
    moved = adam_step(params, expected, group, state)
    after = dict(engine.problems["validator"].module.named_parameters())
    for key in ("a", "r", "b"):
        torch.testing.assert_close(after[key].detach(), moved[key], rtol=1e-9, atol=1e-12)
