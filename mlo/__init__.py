"""A declarative multilevel-optimization engine: declare problems, get every hypergradient."""

from mlo import errors
from mlo.callbacks.base import Callback, Stop
from mlo.checkpoint_file import read_checkpoint
from mlo.checkpoints import Checkpoints
from mlo.condition import Condition
from mlo.engine import Engine
from mlo.errors import MloError
from mlo.graph import DependencyGraph
from mlo.guarding import Guards
from mlo.hypergradients import (
    ConjugateGradient,
    Dense,
    Diagonal,
    Direct,
    FiniteDifference,
    ForwardMode,
    Hypergradient,
    Implicit,
    Iterative,
    Minres,
    Neumann,
    Nystrom,
    NystromSketch,
    OneStep,
    OptimizerDiagonal,
    Preconditioner,
    Preconditioning,
    Result,
    Sama,
    Unrolled,
    make_method,
    methods,
    register,
)
from mlo.incident import replay
from mlo.moves import Move
from mlo.once import once
from mlo.own_loop import solution
from mlo.problem import Problem
from mlo.records import (
    CheckpointRecord,
    EvaluationRecord,
    Info,
    MoveRecord,
    Outcome,
    ResponseRecord,
    StartRecord,
    TickRecord,
)
from mlo.run_result import RunResult, Status
from mlo.solve import LinearSolution
from mlo.weights import load_weights

__version__ = "0.1.0"

__all__ = [
    "Callback",
    "CheckpointRecord",
    "Checkpoints",
    "Condition",
    "ConjugateGradient",
    "Dense",
    "DependencyGraph",
    "Diagonal",
    "Direct",
    "Engine",
    "EvaluationRecord",
    "FiniteDifference",
    "ForwardMode",
    "Guards",
    "Hypergradient",
    "Implicit",
    "Info",
    "Iterative",
    "LinearSolution",
    "Minres",
    "MloError",
    "Move",
    "MoveRecord",
    "Neumann",
    "Nystrom",
    "NystromSketch",
    "OneStep",
    "OptimizerDiagonal",
    "Outcome",
    "Preconditioner",
    "Preconditioning",
    "Problem",
    "ResponseRecord",
    "Result",
    "RunResult",
    "Sama",
    "StartRecord",
    "Status",
    "Stop",
    "TickRecord",
    "Unrolled",
    "__version__",
    "errors",
    "load_weights",
    "make_method",
    "methods",
    "once",
    "read_checkpoint",
    "register",
    "replay",
    "solution",
]
