"""Learning From Mistakes for search, written out: both steps unrolled, and the differences."""

from __future__ import annotations

from typing import NamedTuple

import torch

from .by_hand import call, grad, grads, leaves, losses, part, plus, size, stepped, times


class Terms(NamedTuple):
    """The gradient of the architecture by the place where A enters, and those of V and r."""

    stage1: dict
    mistakes: dict
    stage2: dict
    stage3: dict
    validator: dict

    def gradient(self, *, without=()):
        """The sum of the terms of A, some left out, and the rest, by the architect's names."""
        terms = {k: v for k, v in self._asdict().items() if k not in ("validator", *without)}
        found = {f"architecture.{k}": g for k, g in plus(*terms.values()).items()}
        return found | {f"validator.{k}": g for k, g in self.validator.items()}


def weights(validator, top, train, valid, u):
    """a_i = sigmoid( sum_j r_j x_ij z_ij u_j ) with the raw product of the features."""
    inner = part(top, "encoder.")
    features, others = (call(validator.encoder, inner, batch[0]) for batch in (train, valid))
    products = torch.einsum("if,jf->ij", features, others)
    powers = torch.exp(products - products.amax(1, keepdim=True).detach())
    similar = powers / powers.sum(1, keepdim=True)
    alike = (train[1][:, None] == valid[1][None, :]).to(u.dtype)
    r = top["coefficients"][valid[2]]
    return 1 / (1 + torch.exp(-torch.einsum("j,ij,ij,j->i", r, similar, alike, u)))


class Point:
    """Where everybody stands, as leaves, with one copy of A for each place where it enters."""

    def __init__(self, engine):
        self.learner, self.relearner, architect = engine.problems.values()
        self.module = architect.module
        self.w1, self.w2 = leaves(self.learner.module), leaves(self.relearner.module)
        self.top = leaves(self.module.validator)
        self.copies = [leaves(self.module.architecture) for _ in range(4)]

    def unrolled(self, train, valid) -> Terms:
        """Full differentiation through both steps."""
        first, mistaken, second, third = self.copies
        learner, relearner = self.learner.module, self.relearner.module
        w1 = stepped(self.learner, self.w1, losses(learner, self.w1, first, train).mean())
        u = losses(learner, w1, mistaken, valid)
        a = weights(self.module.validator, self.top, train, valid, u)
        w2 = (a * losses(relearner, self.w2, second, train)).mean()
        w2 = stepped(self.relearner, self.w2, w2)
        outer = losses(relearner, w2, third, valid).mean()
        return Terms(*grads(outer, *self.copies, self.top))

    def by_difference(self, train, valid, radius=0.01) -> Terms:
        """Both mixed products by central differences; that of a by those of the losses."""
        first, mistaken, second, third = self.copies
        learner, relearner = self.learner.module, self.relearner.module
        w1 = stepped(self.learner, self.w1, losses(learner, self.w1, first, train).mean())
        w1 = detached(w1)
        a = weights(
            self.module.validator, self.top, train, valid, losses(learner, w1, mistaken, valid)
        )
        fixed = a.detach()
        w2 = (fixed * losses(relearner, self.w2, second, train)).mean()
        w2 = detached(stepped(self.relearner, self.w2, w2))
        outer = losses(relearner, w2, third, valid).mean()
        direct, v = grads(outer, third, w2)

        e2 = radius / size(v)
        sides = [losses(relearner, plus(self.w2, times(s * e2, v)), second, train) for s in (1, -1)]
        h2 = times(1 / (2 * e2), grad((fixed * (sides[0] - sides[1])).mean(), second))
        s = ((sides[0] - sides[1]) / (2 * e2 * len(fixed))).detach()
        rate1, rate2 = (p.optimizer.param_groups[0]["lr"] for p in (self.learner, self.relearner))
        cotangent = -rate2 * s

        q, through, validator = grads(a, w1, mistaken, self.top, cotangent=cotangent)
        e1 = radius / size(q)
        ahead, behind = (
            grad(
                losses(learner, plus(self.w1, times(s * e1, q)), first, train).mean(),
                first,
            )
            for s in (1, -1)
        )
        h1 = times(1 / (2 * e1), plus(ahead, times(-1, behind)))
        return Terms(
            times(-rate1, h1),
            through,
            times(-rate2, h2),
            direct,
            validator,
        )


def detached(params):
    return {k: p.detach().requires_grad_() for k, p in params.items()}
