"""Checks of programs and methods, and programs whose answers are known."""

from mlo.testing.forms import (
    ClosedForm,
    Level,
    chain,
    closed_forms,
    diamond,
    lfm_shaped,
    logistic,
    quadratic,
    ridge,
    saddle,
    trilevel,
)
from mlo.testing.hypergradient import check_hypergradient
from mlo.testing.hypergradient_report import HypergradientCheck, Reference
from mlo.testing.method_report import MethodReport, MethodRow, Verdict
from mlo.testing.methods import check_method
from mlo.testing.program import check_program

__all__ = [
    "ClosedForm",
    "HypergradientCheck",
    "Level",
    "MethodReport",
    "MethodRow",
    "Reference",
    "Verdict",
    "chain",
    "check_hypergradient",
    "check_method",
    "check_program",
    "closed_forms",
    "diamond",
    "lfm_shaped",
    "logistic",
    "quadratic",
    "ridge",
    "saddle",
    "trilevel",
]
