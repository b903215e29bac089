"""Checks for users: of a program's hypergradients, and of a method of one's own."""

from mlo.testing.hypergradient import check_hypergradient
from mlo.testing.hypergradient_report import HypergradientCheck, Reference
from mlo.testing.program import check_program

__all__ = ["HypergradientCheck", "Reference", "check_hypergradient", "check_program"]
