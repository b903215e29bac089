"""Drawn matrices, always in float64 on the CPU: every dtype and device gets the same ones."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Draw:
    """Random matrices from one seed."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        drawn: Tensor = torch.randn(shape, generator=self._generator, dtype=torch.float64)
        return drawn

    def pull(self, rows: int, columns: int) -> Tensor:
        """A dense matrix with rows of about unit length."""
        length: float = columns**0.5
        return self.normal(rows, columns) / length

    def symmetric(self, eigenvalues: Tensor) -> Tensor:
        """A symmetric matrix with these eigenvalues and drawn eigenvectors."""
        matrix: Tensor = torch.diag(eigenvalues)
        if (eigenvalues == eigenvalues[0]).all():
            return matrix  # a multiple of the identity, without rounding
        vectors, _ = torch.linalg.qr(self.normal(len(eigenvalues), len(eigenvalues)))
        matrix = vectors @ matrix @ vectors.T
        return (matrix + matrix.T) / 2

    def positive(self, size: int, *, condition: float, scale: float = 1.0) -> Tensor:
        """A positive definite matrix, eigenvalues geometric from scale / condition to scale."""
        exponents = torch.linspace(0.0, 1.0, size, dtype=torch.float64)
        return self.symmetric(scale * condition ** (exponents - 1.0))

    def below_one(self, rows: int, columns: int, length: float = 0.7) -> Tensor:
        """A dense matrix of the given spectral norm."""
        matrix = self.normal(rows, columns)
        norm: Tensor = torch.linalg.matrix_norm(matrix, 2)
        return length * matrix / norm


def cast_fields(data: T, device: torch.device | str, dtype: torch.dtype) -> T:
    """A dataclass of tensors, on another device and in another dtype."""
    fields = dataclasses.fields(data)  # type: ignore[arg-type]
    moved = {field.name: getattr(data, field.name).to(device, dtype) for field in fields}
    return dataclasses.replace(data, **moved)  # type: ignore[type-var]
