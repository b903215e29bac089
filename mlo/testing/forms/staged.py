"""Staged programs of linear responses: rows, diamonds, and Hessians that are not definite."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mlo.errors import ConfigurationError
from mlo.testing.forms.drawn import Draw
from mlo.testing.forms.form import ClosedForm
from mlo.testing.forms.linear import TOP, Node, drawn_node, linear_form


def chain(
    length: int = 3,
    *,
    size: int = 3,
    condition: float = 3.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> ClosedForm:
    """Problems in a row: the first reads the upper one, each other one the one before it.

    Args:
        length: how many problems below the upper one, which reads the last of them.
        size: parameters of each problem.
        condition: condition number of each Hessian, whose largest eigenvalue is 1.
        seed: of what is drawn.
        dtype: of all tensors; the truth is found in float64.
        device: of all tensors.

    Raises:
        ConfigurationError: length is below 1.
    """
    _check("chain(length=...)", length)
    draw = Draw(seed)
    nodes: dict[str, Node] = {}
    before = TOP
    for k in range(length):
        nodes[f"link{k}"] = drawn_node(draw, size, (before,), condition)
        before = f"link{k}"
    return linear_form(f"chain of {length}", nodes, draw, dtype=dtype, device=device)


def diamond(
    count: int = 2,
    *,
    size: int = 3,
    condition: float = 3.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> ClosedForm:
    """Diamonds in a row: two problems read one, a third reads both, and so on; 2^count paths.

    Args:
        count: how many diamonds.
        size: parameters of each problem.
        condition: condition number of each Hessian, whose largest eigenvalue is 1.
        seed: of what is drawn.
        dtype: of all tensors; the truth is found in float64.
        device: of all tensors.

    Raises:
        ConfigurationError: count is below 1.
    """
    _check("diamond(count=...)", count)
    draw = Draw(seed)
    nodes: dict[str, Node] = {}
    before = TOP
    for k in range(count):
        left, right, join = f"left{k}", f"right{k}", f"join{k}"
        nodes[left] = drawn_node(draw, size, (before,), condition)
        nodes[right] = drawn_node(draw, size, (before,), condition)
        nodes[join] = drawn_node(draw, size, (left, right), condition)
        before = join
    return linear_form(f"row of {count} diamonds", nodes, draw, dtype=dtype, device=device)


def saddle(
    eigenvalues: Sequence[float] = (1.0, 0.6, -0.4),
    *,
    name: str = "saddle",
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> ClosedForm:
    """One problem that stands at a stationary point which is no minimum, or whose Hessian is bad.

    The formula of the implicit function theorem holds wherever the Hessian is invertible; where an
    eigenvalue is zero there is no answer, and `truth` is NaN.

    Args:
        eigenvalues: of the Hessian.
        name: of the form.
        seed: of what is drawn.
        dtype: of all tensors; the truth is found in float64.
        device: of all tensors.
    """
    draw = Draw(seed)
    spectrum = torch.tensor(eigenvalues, dtype=torch.float64)
    size = len(spectrum)
    node = Node(draw.symmetric(spectrum), {TOP: draw.pull(size, size)}, draw.normal(size))
    return linear_form(name, {"low": node}, draw, dtype=dtype, device=device)


def _check(what: str, count: int) -> None:
    if count < 1:
        raise ConfigurationError(f"{what} must be at least 1, got {count}")
