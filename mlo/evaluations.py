"""Functions that look at the modules every so many ticks and return metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from mlo.distribution import Distribution, is_vector
from mlo.errors import DeclarationError, EvaluationError, listed, nearest
from mlo.notes import noting
from mlo.program import Program
from mlo.reads import Reads, declared_reads
from mlo.records import EvaluationRecord


class Evaluations:
    """Functions that look at the modules every so many ticks and return metrics."""

    def __init__(
        self, program: Program, declared: Mapping[str, tuple[Callable[..., Any], int]]
    ) -> None:
        self.program = program
        self.functions: dict[str, tuple[Callable[..., Any], Reads, int]] = {}
        if not isinstance(declared, Mapping):
            raise DeclarationError(
                "Engine.run(evaluate=...) must map names to (function, every), got "
                f"{type(declared).__name__}; write {{'test': (function, 100)}}"
            )
        for name, pair in declared.items():
            function, every = _pair(name, pair)
            reads = declared_reads(function, owner=f"evaluation '{name}'")
            unknown = [r for r in reads.names if r not in program.problems]
            if unknown:
                raise DeclarationError(
                    f"evaluation '{name}' reads {listed(unknown)}, which is no problem"
                    f"{nearest(unknown[0], program.problems)} (problems: "
                    f"{listed(program.problems)}); give other arguments a default"
                )
            self.functions[name] = (function, reads, every)

    def make(self, tick: int, *, due: bool) -> list[EvaluationRecord]:
        """Make those that are due after `tick`, counted from 0, or those that are not."""
        return [
            self._evaluate(name, function, reads, tick)
            for name, (function, reads, every) in self.functions.items()
            if ((tick + 1) % every == 0) is due
        ]

    def _evaluate(
        self, name: str, function: Callable[..., Any], reads: Reads, tick: int
    ) -> EvaluationRecord:
        started = time.perf_counter()
        modules = {read: self.program.problems[read].module for read in reads.names}
        with self.program.undisturbed(), torch.no_grad():
            for module in modules.values():
                module.eval()
            with noting(f"in evaluation '{name}'"):
                returned = reads.call(function, modules)
        metrics = returned if isinstance(returned, Mapping) else {name: returned}
        plain: dict[str, float] = {}
        vectors: dict[str, Distribution] = {}
        for key, given in metrics.items():
            # Of what needs a gradient, such as a parameter itself, torch warns to take numbers.
            value = given.detach() if isinstance(given, torch.Tensor) else given
            try:
                if is_vector(value):
                    vectors[key] = Distribution.of(value)
                plain[key] = vectors[key].mean if key in vectors else float(value)
            except (TypeError, ValueError, RuntimeError) as error:
                raise EvaluationError(
                    f"evaluation '{name}' must return a number or {{metric: number or vector}}, "
                    f"got {_found(value)} as '{key}'; reduce it, or give its parts names"
                ) from error
        return EvaluationRecord(tick, name, plain, time.perf_counter() - started, vectors)


def _found(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)} and type {value.dtype}"
    return repr(value)


def _pair(name: str, pair: Any) -> tuple[Callable[..., Any], int]:
    good = isinstance(pair, tuple) and len(pair) == 2 and callable(pair[0])
    if not good or isinstance(pair[1], bool) or not isinstance(pair[1], int) or pair[1] < 1:
        raise DeclarationError(
            f"evaluate['{name}'] must be (function, every) with every a whole number of at least "
            f"1, got {pair!r}"
        )
    return pair[0], pair[1]
