"""The reference: both programs of search written out in plain torch, step by step."""

from __future__ import annotations

import contextlib
import math

import torch
from torch.func import functional_call

from problems.models import conv_encoder
from problems.nas.space import CellSpace
from problems.nas.supernet import CellSupernet
from problems.training import Training

CLASSES, TICKS = 4, 3

HEAVY = Training(learning_rate=0.05, momentum=0.9, weight_decay=5e-3)
# A bound below the norms of the gradients, which therefore are cut.
CLIPPED = Training(learning_rate=0.1, momentum=0.8, weight_decay=1e-2, clip_norm=0.05)


def supernet(nodes, seed, channels=4):
    torch.manual_seed(seed)
    return CellSupernet(CellSpace.darts(nodes=nodes), CLASSES, channels=channels, layers=3)


def encoder():
    torch.manual_seed(7)
    return conv_encoder(channels=3, width=3, features=6, batch_norm=True)


def batches(size, side, total, seed):
    """A batch for every tick; the index is no place in the batch."""
    draw = torch.Generator().manual_seed(seed)

    def batch():
        x = torch.randn(size, 3, side, side, generator=draw, dtype=torch.float64)
        labels = torch.randint(0, CLASSES, (size,), generator=draw)
        return x, labels, torch.randperm(total, generator=draw)[:size]

    return [batch() for _ in range(TICKS + 1)]


def data(n, m, side):
    return {"train": batches(n, side, 40, 1), "valid": batches(m, side, 30, 2)}


def leaves(module):
    """Copies of the parameters, to differentiate by."""
    return {k: p.detach().clone().requires_grad_() for k, p in module.named_parameters()}


def part(params, prefix):
    """The parameters of a submodule by their own names."""
    return {k.removeprefix(prefix): p for k, p in params.items() if k.startswith(prefix)}


def call(module, params, *args):
    """The module at other parameters; its running statistics stay as they are."""
    buffers = {k: b.clone() for k, b in module.named_buffers()}
    return functional_call(module, {**params, **buffers}, args)


def mixing(alphas):
    """The mixing weights of each part: exp over the sum of exp."""
    powers = {k.removeprefix("alpha_"): a.exp() for k, a in alphas.items()}
    return {name: p / p.sum(1, keepdim=True) for name, p in powers.items()}


def losses(net, params, alphas, batch):
    """Cross-entropies, written out."""
    logits, labels = call(net, params, batch[0], mixing(alphas)), batch[1]
    return torch.logsumexp(logits, 1) - logits.gather(1, labels[:, None]).squeeze(1)


def velocity(problem, key):
    state = problem.optimizer.state.get(dict(problem.module.named_parameters())[key], {})
    return state.get("momentum_buffer")


def stepped(problem, params, loss):
    """Where SGD leads, with its momentum as it stands, as a function of all that is in `loss`."""
    (group,) = problem.optimizer.param_groups
    grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
    factor = 1.0
    if problem.clip_norm is not None:  # a constant factor
        length = math.sqrt(sum(float(g.detach().square().sum()) for g in grads))
        factor = min(1.0, problem.clip_norm / (length + 1e-6))
        assert factor < 1
    new = {}
    for (key, p), gradient in zip(params.items(), grads, strict=True):
        g = factor * gradient + group["weight_decay"] * p
        before = velocity(problem, key)
        if before is not None:
            g = group["momentum"] * before.clone() + g
        new[key] = p - group["lr"] * g
    return new


def grads(outer, *groups, cotangent=None):
    """By every parameter of each group, in one pass; zeros where nothing depends."""
    flat = [p for params in groups for p in params.values()]
    found = torch.autograd.grad(outer, flat, cotangent, retain_graph=True, allow_unused=True)
    pairs = zip(flat, found, strict=True)
    values = iter([torch.zeros_like(p) if g is None else g for p, g in pairs])
    return [{k: next(values) for k in params} for params in groups]


def grad(outer, params):
    (found,) = grads(outer, params)
    return found


def plus(*parts):
    return {k: sum(each[k] for each in parts) for k in parts[0]}


def times(number, gradient):
    return {k: number * g for k, g in gradient.items()}


def size(gradient):
    return math.sqrt(sum(float(g.detach().square().sum()) for g in gradient.values()))


def error(found, want) -> float:
    """The largest of the relative errors of all tensors; a tensor that is nothing is an error."""
    assert found.keys() == want.keys()
    worst = 0.0
    for key, value in want.items():
        length = float(value.detach().norm())
        difference = float((found[key].detach() - value.detach()).norm())
        worst = max(worst, difference / length if length > 1e-14 else math.inf)
    return worst if math.isfinite(worst) else math.inf


@contextlib.contextmanager
def received(problem):
    """What the optimizer of a problem is handed in its next step, by the parameters' names."""
    seen: dict = {}

    def look(*_):
        assert not seen, "one step"
        for key, p in problem.module.named_parameters():
            seen[key] = torch.zeros_like(p) if p.grad is None else p.grad.clone()

    handle = problem.optimizer.register_step_pre_hook(look)
    try:
        yield seen
    finally:
        handle.remove()
