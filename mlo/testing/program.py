"""`check_program`: all total gradients of a program, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlo.engine import Engine
from mlo.errors import CheckError
from mlo.testing.hypergradient import check_hypergradient
from mlo.testing.hypergradient_report import HypergradientCheck


def check_program(engine: Engine, **settings: Any) -> Iterator[HypergradientCheck | CheckError]:
    """Check the total gradient of every problem that others answer to, lowest first.

    Args:
        engine: the program, where it stands.
        **settings: of `check_hypergradient`.

    Yields:
        What was found, or the error where a check failed.
    """
    for name in engine.graph.names:
        if engine.graph.scope(name):
            try:
                yield check_hypergradient(engine, name, **settings)
            except CheckError as error:
                yield error
