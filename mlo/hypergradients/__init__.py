"""Hypergradient methods: how the problems above differentiate through a problem's solution."""

from mlo.hypergradients.base import Hypergradient, Result, State
from mlo.hypergradients.conjugate_gradient import ConjugateGradient
from mlo.hypergradients.dense import Dense
from mlo.hypergradients.direct import Direct
from mlo.hypergradients.finite_difference import FiniteDifference
from mlo.hypergradients.forward_mode import ForwardMode
from mlo.hypergradients.implicit import Implicit
from mlo.hypergradients.iterative import Iterative
from mlo.hypergradients.minres import Minres
from mlo.hypergradients.neumann import Neumann
from mlo.hypergradients.nystrom import Nystrom
from mlo.hypergradients.one_step import OneStep
from mlo.hypergradients.preconditioners import (
    Diagonal,
    NystromSketch,
    OptimizerDiagonal,
    Preconditioner,
    Preconditioning,
)
from mlo.hypergradients.registry import make_method, methods, register
from mlo.hypergradients.sama import Sama
from mlo.hypergradients.unrolled import Unrolled

__all__ = [
    "ConjugateGradient",
    "Dense",
    "Diagonal",
    "Direct",
    "FiniteDifference",
    "ForwardMode",
    "Hypergradient",
    "Implicit",
    "Iterative",
    "Minres",
    "Neumann",
    "Nystrom",
    "NystromSketch",
    "OneStep",
    "OptimizerDiagonal",
    "Preconditioner",
    "Preconditioning",
    "Result",
    "Sama",
    "State",
    "Unrolled",
    "make_method",
    "methods",
    "register",
]
