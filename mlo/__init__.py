"""A declarative multilevel-optimization engine: declare problems, get every hypergradient."""

from mlo import errors
from mlo.callbacks.base import Callback, Stop
from mlo.engine import Engine
from mlo.errors import MloError
from mlo.graph import DependencyGraph
from mlo.hypergradients import (
    ConjugateGradient,
    Dense,
    Direct,
    FiniteDifference,
    Hypergradient,
    Implicit,
    Neumann,
    OneStep,
    Result,
    make_method,
    methods,
    register,
)
from mlo.problem import Problem
from mlo.records import (
    EvaluationRecord,
    Info,
    MoveRecord,
    Outcome,
    RunResult,
    Status,
    TickRecord,
)
from mlo.solve import Solution

__version__ = "0.1.0"

__all__ = [
    "Callback",
    "ConjugateGradient",
    "Dense",
    "DependencyGraph",
    "Direct",
    "Engine",
    "EvaluationRecord",
    "FiniteDifference",
    "Hypergradient",
    "Implicit",
    "Info",
    "MloError",
    "MoveRecord",
    "Neumann",
    "OneStep",
    "Outcome",
    "Problem",
    "Result",
    "RunResult",
    "Solution",
    "Status",
    "Stop",
    "TickRecord",
    "__version__",
    "errors",
    "make_method",
    "methods",
    "register",
]
