r"""Regression under a penalty whose logarithm is learned on validation data.

    f(w, l) = training error + sum_i exp(l_i) w_i^2 / 2,    F(l, w) = validation error + |l|^2 / 50

With H the Hessian of f and v = dF/dw the total gradient is dF/dl - exp(l) w H^{-1} v, entry by
entry; one penalty for all coordinates has the sum of the entries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mlo.testing.forms.drawn import Draw, cast_fields
from mlo.testing.forms.form import (
    ClosedForm,
    Level,
    Named,
    condition_number,
    sensitivity,
)
from mlo.testing.forms.newton import newton

PRIOR = 0.02
"""Half of it times |l|^2 keeps the penalty finite, and gives the gradient a direct part."""


def ridge(
    *,
    examples: int = 20,
    size: int = 4,
    per_coordinate: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> ClosedForm:
    r"""Ridge regression: ``w* = (X^T X / n + diag(exp l))^{-1} X^T y / n``.

    Args:
        examples: n, in the training and in the validation data.
        size: coordinates of w.
        per_coordinate: a penalty for every coordinate instead of one for all.
        seed: of what is drawn.
        dtype: of all tensors; the truth is found in float64.
        device: of all tensors.
    """
    draw = Draw(seed)
    data = _data(draw, examples, size)
    log = _log_penalty(draw, size, per_coordinate)
    n, penalty = examples, log.exp().expand(size)
    hessian = data.X.T @ data.X / n + torch.diag(penalty)
    w = torch.linalg.solve(hessian, data.X.T @ data.y / n)
    v = data.X_valid.T @ (data.X_valid @ w - data.y_valid) / n

    def error(X: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return 0.5 * (X @ w - y).square().mean()

    name = "ridge, per coordinate" if per_coordinate else "ridge"
    return _form(name, error, cast_fields(data, device, dtype), (w, log, hessian, v), draw)


def logistic(
    *,
    examples: int = 30,
    size: int = 4,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> ClosedForm:
    r"""Logistic regression, labels 1 and -1: ``H = X^T S X / n + exp(l) I``, S = diag(p (1 - p)).

    w* is found by Newton's method to rounding.

    Args:
        examples: n, in the training and in the validation data.
        size: coordinates of w.
        seed: of what is drawn.
        dtype: of all tensors; the truth is found in float64.
        device: of all tensors.
    """
    draw = Draw(seed)
    data = _data(draw, examples, size).with_labels()
    log = _log_penalty(draw, size, per_coordinate=False)
    penalty = log.exp() * torch.eye(size, dtype=log.dtype)
    n = examples

    def system(w: Tensor) -> tuple[Tensor, Tensor]:
        p = torch.sigmoid(data.y * (data.X @ w))
        slope = data.X.T @ (-data.y * (1 - p)) / n + penalty @ w
        return slope, data.X.T @ torch.diag(p * (1 - p)) @ data.X / n + penalty

    w = newton(system, torch.zeros(size, dtype=log.dtype))
    _, hessian = system(w)
    p = torch.sigmoid(data.y_valid * (data.X_valid @ w))
    v = data.X_valid.T @ (-data.y_valid * (1 - p)) / n

    def error(X: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return F.softplus(-y * (X @ w)).mean()

    return _form("logistic", error, cast_fields(data, device, dtype), (w, log, hessian, v), draw)


@dataclasses.dataclass(frozen=True)
class _Data:
    X: Tensor
    y: Tensor
    X_valid: Tensor
    y_valid: Tensor

    def with_labels(self) -> _Data:
        """Targets replaced by their signs."""
        return dataclasses.replace(self, y=_signs(self.y), y_valid=_signs(self.y_valid))


def _signs(y: Tensor) -> Tensor:
    return torch.where(y > 0, 1.0, -1.0).to(y.dtype)


def _data(draw: Draw, examples: int, size: int) -> _Data:
    """Linear data with noise, and validation data with another noise."""
    w = draw.normal(size)
    X, X_valid = draw.normal(examples, size), draw.normal(examples, size)
    y, y_valid = X @ w + draw.normal(examples), X_valid @ w + draw.normal(examples)
    return _Data(X, y, X_valid, y_valid)


def _log_penalty(draw: Draw, size: int, per_coordinate: bool) -> Tensor:
    return -1.0 + 0.3 * (draw.normal(size) if per_coordinate else draw.normal())


def _form(
    name: str,
    error: Callable[[Tensor, Tensor, Tensor], Tensor],
    data: _Data,
    found: tuple[Tensor, Tensor, Tensor, Tensor],
    draw: Draw,
) -> ClosedForm:
    """The program, and its total gradient by the formula of the module."""
    w, log, hessian, v = found
    size = len(w)
    mixed = torch.diag(log.exp().expand(size) * w)  # dg/dl, one column per coordinate
    mixed = mixed if log.dim() else mixed.sum(1)[:, None]
    response = -mixed.T @ torch.linalg.solve(hessian, v)
    truth = PRIOR * log + response.reshape(log.shape)

    def cast(t: Tensor) -> Tensor:
        return t.to(data.X.device, data.X.dtype)

    def train(regression: Named, penalty: Named) -> Tensor:
        weights = penalty["log"].exp()
        inside = 0.5 * (weights * regression["w"].square()).sum()
        return error(data.X, data.y, regression["w"]) + inside

    def valid(penalty: Named, regression: Named) -> Tensor:
        prior = 0.5 * PRIOR * penalty["log"].square().sum()
        return error(data.X_valid, data.y_valid, regression["w"]) + prior

    lower, upper, at = "regression", "penalty", {"log": cast(log)}
    away = {"w": cast(w + 0.5 * draw.normal(size))}
    return ClosedForm(
        name=name,
        upper=upper,
        levels=(
            Level(lower, train, (lower, upper), {"w": cast(w)}, away),
            Level(upper, valid, (upper, lower), at, at),
        ),
        truth={"log": cast(truth)},
        condition=condition_number(hessian),
        sensitivity=sensitivity([-torch.linalg.solve(hessian, mixed)], [v], response),
    )
