r"""Staged programs whose solutions are linear in what they read.

Problem k has the loss ``w^T A_k w / 2 - w^T (sum_p B_kp w_p + b_k)``, so with S_kp = A_k^{-1} B_kp

    w_k = sum_p S_kp w_p + A_k^{-1} b_k,    dw_k/dx = sum_p S_kp dw_p/dx,    dx/dx = I

which is a product of matrices along a chain, and a product of sums along a row of diamonds. The
upper loss is ``F(x, w) = |K w - t|^2 / 2 + |x|^2 / 10``, w the last problem's parameters, and its
total gradient ``x / 5 + (dw/dx)^T v`` with v = K^T (K w - t).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mlo.testing.forms.drawn import Draw
from mlo.testing.forms.form import (
    PRIOR,
    ClosedForm,
    Level,
    Named,
    condition_number,
    sensitivity,
)

TOP = "top"


@dataclasses.dataclass(frozen=True)
class Node:
    """A_k, parent -> B_kp, and b_k."""

    curvature: Tensor
    pulls: Mapping[str, Tensor]
    offset: Tensor

    def inverse(self) -> Tensor:
        """A^{-1}; NaN where a singular A has none."""
        values = torch.linalg.eigvalsh(self.curvature).abs()
        if values.min() <= 1e-12 * values.max():
            return torch.full_like(self.curvature, torch.nan)
        inverse: Tensor = torch.linalg.inv(self.curvature)
        return inverse


def drawn_node(draw: Draw, size: int, parents: Sequence[str], condition: float) -> Node:
    """A node whose Hessian has the largest eigenvalue 1 and the given condition number."""
    curvature = draw.positive(size, condition=condition)
    return Node(curvature, {p: draw.pull(size, size) for p in parents}, draw.normal(size))


def linear_form(
    name: str,
    nodes: Mapping[str, Node],
    draw: Draw,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
) -> ClosedForm:
    """The program of these nodes, lowest first; the upper problem reads the last one.

    Solutions and Jacobians are found from the lowest problem up, see the module.

    Args:
        name: of the form.
        nodes: problem -> its matrices, all of one size.
        draw: where the upper problem's matrices come from.
        dtype: of all tensors.
        device: of all tensors.
    """
    size = len(next(iter(nodes.values())).offset)
    x, K, t = draw.normal(size), draw.pull(size, size), draw.normal(size)
    at, jacobians = {TOP: x}, {TOP: torch.eye(size, dtype=x.dtype)}
    for own, node in nodes.items():
        inverse = node.inverse()
        target = sum((B @ at[p] for p, B in node.pulls.items()), node.offset)
        at[own] = inverse @ target
        pulled = [B @ jacobians[p] for p, B in node.pulls.items()]
        jacobians[own] = inverse @ torch.stack(pulled).sum(0)
    last = list(nodes)[-1]
    v = K.T @ (K @ at[last] - t)
    response = jacobians[last].T @ v
    amplified = sensitivity([jacobians[own] for own in nodes], _cotangents(nodes, v), response)

    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype)

    levels = []
    for own, node in nodes.items():
        w = torch.nan_to_num(at[own])  # stand somewhere, where there is no solution
        away = w + 0.5 * draw.normal(size)
        pulls = [cast(B) for B in node.pulls.values()]
        loss = _lower_loss(cast(node.curvature), pulls, cast(node.offset))
        reads = (own, *node.pulls)
        levels.append(Level(own, loss, reads, {"w": cast(w)}, {"w": cast(away)}))
    top = {"x": cast(x)}
    levels.append(Level(TOP, _upper_loss(cast(K), cast(t)), (TOP, last), top, top))
    return ClosedForm(
        name=name,
        upper=TOP,
        levels=tuple(levels),
        truth={"x": cast(PRIOR * x + response)},
        condition=max(condition_number(node.curvature) for node in nodes.values()),
        sensitivity=amplified,
    )


def _cotangents(nodes: Mapping[str, Node], v: Tensor) -> list[Tensor]:
    """v_p = sum_k S_kp^T v_k, from the last problem down, in the order of `nodes`."""
    found = {name: torch.zeros_like(v) for name in nodes}
    found[list(nodes)[-1]] = v
    for name in reversed(list(nodes)):
        adjoint = nodes[name].inverse().T @ found[name]
        for parent, B in nodes[name].pulls.items():
            if parent != TOP:
                found[parent] = found[parent] + B.T @ adjoint
    return list(found.values())


def _lower_loss(A: Tensor, pulls: Sequence[Tensor], b: Tensor) -> Callable[..., Tensor]:
    def loss(own: Named, *read: Named) -> Tensor:
        w, target = own["w"], b
        for B, other in zip(pulls, read, strict=True):
            (value,) = other.values()
            target = target + B @ value
        return 0.5 * w @ A @ w - w @ target

    return loss


def _upper_loss(K: Tensor, t: Tensor) -> Callable[..., Tensor]:
    def loss(top: Named, last: Named) -> Tensor:
        prior = 0.5 * PRIOR * top["x"].square().sum()
        return 0.5 * (K @ last["w"] - t).square().sum() + prior

    return loss
