r"""The joint response of problems on one level that read each other.

At their solution all their conditions hold at once, g_a(a, b, c) = 0 and g_b(a, b, c) = 0: an
equilibrium in which each takes the others as they are. With w = (a, b) and g = (g_a, g_b),

    c_bar = -(dg/dc)^T u,    (dg/dw)^T u = v        (implicit function theorem)

as for one problem, but g is the gradient of no loss, and dg/dw is not symmetric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from mlo.condition import Condition
from mlo.differentiation import differentiate
from mlo.response import Needed
from mlo.types import PartialTensors, Tensors, Values
from mlo.vectors import dense, filled, grouped

if TYPE_CHECKING:
    from mlo.sweep import Sweep


class Circle:
    """The response of several problems in one sweep.

    Args:
        sweep: where everybody stands.
        names: the problems; their methods are the same.
    """

    def __init__(self, sweep: Sweep, names: tuple[str, ...]) -> None:
        self.sweep = sweep
        self.names = names
        self.label = " and ".join(names)
        self.method = sweep.program.problems[names[0]].hypergradient
        self.values = dict(sweep.values)
        graph = sweep.program.graph
        read = {r for name in names for r in graph.context(name)}
        self.outside = tuple(n for n in graph.names if n in read and n not in names)
        self.memory = sweep.memory(self.label, self.method)

    def params(self) -> Tensors:
        """The parameters of all members."""
        return tuple(t for name in self.names for t in self.values[name])

    def context(self, env: Values) -> Tensors:
        """What the members depend on, and is none of them."""
        return tuple(t for name in self.outside for t in env[name])

    def apart(self, params: Tensors) -> dict[str, Tensors]:
        """The parameters, member by member."""
        return grouped(self.names, self.values, params)

    def backward(
        self, params: Tensors, context: Tensors, needed: Sequence[bool], cotangent: Tensors
    ) -> PartialTensors:
        """Cotangents of the context, for one of the parameters."""

        def make() -> Condition:
            return self._condition(params, context, needed)

        cotangent = filled(dense(cotangent), params)
        found = self.sweep.answer(self.label, self.method, make, cotangent)
        return Needed(needed).spread(found.grads)

    def _condition(self, params: Tensors, context: Tensors, needed: Sequence[bool]) -> Condition:
        wanted = Needed(needed)
        sweep, partial = self.sweep, self.sweep.program.graph.nested == "partial"

        def slope(w: Tensors, c: Tensors) -> PartialTensors:
            full = wanted.into(context, c)
            env = {**self.values, **grouped(self.outside, self.values, full), **self.apart(w)}
            found: list[Tensor | None] = []
            for name in self.names:
                setting = sweep.moves[name].setting
                loss = sweep.total(name, env[name], env, setting, replay=True, partial=partial).loss
                found += differentiate(name, [loss], env[name], create_graph=True)
            return tuple(found)

        scales = [sweep.program.optimizer_scale(name) for name in self.names]
        offered = [scale for scale in scales if scale is not None]
        rates = [rate for name in self.names for rate in sweep.moves[name].learning_rate]
        return Condition(
            None,
            params,
            wanted.of(context),
            problem=self.label,
            learning_rate=tuple(rates),
            memory=self.memory,
            slope=slope,
            scale=(lambda: tuple(t for scale in offered for t in scale())) if offered else None,
        )
