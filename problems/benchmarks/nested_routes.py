"""The hypergradient of the nested program by hand and by the engine, with their products."""

from __future__ import annotations

import torch
from torch import Tensor

import mlo
from mlo.condition import Condition
from problems.benchmarks.conjugate import conjugate_gradients
from problems.benchmarks.nested_program import Program

grad = torch.autograd.grad


def by_hand(program: Program) -> tuple[Tensor, int]:
    """The explicit route; returns the hypergradient and the products with the net's Hessian."""
    z, y, x = (t.clone().requires_grad_() for t in program.point.values())
    g = grad(program.net_loss(z, y, x), (z, y, x), create_graph=True)
    count: list[int] = []

    def solve(v: Tensor) -> Tensor:
        return conjugate_gradients(lambda q: grad(g[0], z, q, retain_graph=True)[0], v, count)

    def pulled(s: Tensor) -> tuple[Tensor, Tensor]:
        to_y, to_x = grad(g[0], (y, x), s, retain_graph=True)
        return to_y, to_x

    middle = program.weights_loss(y, z, x)
    p = solve(grad(middle, z, retain_graph=True)[0])
    lagrangian = middle - (p * g[0]).sum()
    slope = grad(lagrangian, (z, y), create_graph=True)

    def total(u: Tensor) -> tuple[Tensor, Tensor]:
        tangent = solve(-grad(g[1], z, u, retain_graph=True)[0])
        rz, ry, rx = grad(slope, (z, y, x), (tangent, u), retain_graph=True)
        sy, sx = pulled(solve(rz))
        return ry - sy, rx - sx

    top = solve(grad(program.penalty_loss(z), z)[0])
    to_y, to_x = pulled(top)
    u = conjugate_gradients(lambda q: total(q)[0], -to_y, [])
    return -to_x - total(u)[1], sum(count)


def counted(engine: mlo.Engine) -> tuple[Tensor, int]:
    """The engine's hypergradient and its products with the net's Hessian."""
    taken = 0
    original = Condition._products

    def counting(self: Condition, *given: object) -> object:
        nonlocal taken
        taken += self.problem == "net"
        return original(self, *given)  # type: ignore[arg-type]

    Condition._products = counting  # type: ignore[method-assign, assignment]
    try:
        return engine.hypergradient("penalty")["w"], taken
    finally:
        Condition._products = original  # type: ignore[method-assign]
