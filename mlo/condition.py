r"""The stationarity condition of a problem, and every product that a method needs of it.

    g(w, c) = df/dw        f: the problem's loss, total where lower problems respond

All partial derivatives are taken by plain autograd with respect to *re-leafed* tensors: detached
copies in a first-order backward, views of the originals when a graph of the backward is wanted.
Paths stop at them, so a partial derivative is partial, and with views it is still attached to what
it came from.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from mlo.differentiation import differentiate
from mlo.errors import DoubleBackwardError, MethodError
from mlo.linearization import Linearization, Memory
from mlo.micro_batches import MicroBatches, Parts
from mlo.moves import Move
from mlo.once import Kept
from mlo.solve import LinearSolution, LinearSolver, differentiable_solve
from mlo.types import PartialTensors, Tensors
from mlo.vectors import dense, detached, dot, filled, leaves, plus

LossFunction = Callable[[Tensors, Tensors], Tensor]
"""f(w, c): the loss at parameters w and context c, a 0-dim tensor."""

Slope = Callable[[Tensors, Tensors], PartialTensors]
"""g(w, c) with its graph, where it is the gradient of no single loss."""

Recall = Callable[[Move], "Condition"]
"""recall(move): the condition where a recorded move was made, with respect to the same context."""


class Condition:
    """g(w, c) at one point, and its products.

    Attributes:
        params: w, where the condition is taken (for methods that need moves: from where the
            problem moved).
        context: the outside tensors c with respect to which products are wanted.
        move: the recorded move, where there is one.
        led: where the problem stands; for methods that need moves, where the move led.
        attached: whether the products carry a graph themselves (nested levels).
        problem: name of the problem, for messages.
        learning_rate: of the problem's optimizer, per parameter.
        objective: f(w, c), under the batch, mode and random state of the move; `None` where g is
            the gradient of no single loss.
        memory: what all conditions of one problem at one point share.
        positions: places of `context` among all tensors that the problem depends on.
        single_use: its products are asked for once, so it takes micro-batches one at a time.
        direct: what `direct_gradient` differentiates by.
    """

    def __init__(
        self,
        objective: LossFunction | None,
        params: Tensors,
        context: Tensors,
        *,
        problem: str,
        learning_rate: tuple[float | Tensor, ...],
        move: Move | None = None,
        graph: Linearization | None = None,
        memory: Memory | None = None,
        parts: Parts | None = None,
        slope: Slope | None = None,
        positions: tuple[int, ...] = (),
        recall: Recall | None = None,
        single_use: bool = False,
        scale: Callable[[], Tensors] | None = None,
        total: Callable[[], Tensors] | None = None,
        led: Tensors | None = None,
        kept: Kept | None = None,
    ) -> None:
        self.objective = objective
        self.params = params
        self.context = context
        self.problem = problem
        self.learning_rate = learning_rate
        self.move = move
        self.attached = torch.is_grad_enabled()
        self.memory = Memory() if memory is None else memory
        self._graph = graph
        self._parts = None if parts is None else MicroBatches(problem, parts)
        self._slope = slope
        self.positions = positions
        self.single_use = single_use
        self._recall = recall
        self._total = total
        self.led = params if led is None else led
        self._products_of: tuple[Tensors, PartialTensors] | None = None
        self._scale = scale
        self._kept = kept

    def gradient(self) -> Tensors:
        """g(w, c), one tensor per parameter; zeros where the loss does not depend on one."""
        streamed = self._streamed if self.single_use else None
        if streamed is not None:
            return filled(streamed.gradient(self.params, self.context), self.params)
        graph = self._linearized()
        gradient = filled(dense(graph.gradient), graph.params)
        return gradient if self.attached else tuple(g.detach() for g in gradient)

    def move_gradient(self) -> Tensors:
        """The gradient that the recorded move was made with, taken again.

        That is g, but where g leaves responses out (``nested="partial"``): moves are made with the
        total gradient.
        """
        return self.gradient() if self._total is None else self._total()

    def hvp(self, p: Sequence[Tensor]) -> Tensors:
        """``(dg/dw)^T p``, which is H p wherever g is a gradient.

        Cost: about 2 gradient evaluations, after one for the graph that all products share.
        """
        graph = self._linearized()
        return filled(self._products(p, graph.params), graph.params)

    def mixed_vjp(self, u: Sequence[Tensor]) -> PartialTensors:
        """``(dg/dc)^T u`` for every context tensor; `None` where g does not depend on it."""
        if self._streamed is not None:
            return self._streamed.product(self.params, self.context, u, both=False)
        return self._products(u, self._linearized().context)

    def products(self, u: Sequence[Tensor]) -> tuple[Tensors, PartialTensors]:
        """`hvp(u)` and `mixed_vjp(u)` in one call, for little more than the price of one."""
        streamed = self._streamed if self.single_use else None
        if streamed is not None:
            both = streamed.product(self.params, self.context, u, both=True)
        else:
            graph = self._linearized()
            both = self._products(u, (*graph.params, *graph.context))
        split = len(self.params)
        return filled(both[:split], self.params), both[split:]

    def jvp(self, p: Sequence[Tensor], q: Sequence[Tensor]) -> Tensors:
        """``(dg/dw) p + (dg/dc) q``: what `products`, linear in u, is the transpose of.

        Cost: about 2 gradient evaluations, after 3 for the graph that all such products share.
        """
        u, made = self._transposable()
        pairs = zip(made, (*p, *q), strict=True)
        active = [(m, t) for m, t in pairs if m is not None and m.requires_grad]
        found = differentiate(
            self.problem, [m for m, _ in active], u, [t for _, t in active], retain_graph=True
        )
        return filled(found, u)

    def trajectory(self) -> Iterator[Condition]:
        """The conditions where the recorded updates were made, the latest first.

        Each is made when it is asked for, and shares nothing with the others, so that one graph at
        a time need live.
        """
        if self.move is not None and self._recall is not None:
            for move in reversed((*self.move.past, self.move)):
                yield self._recall(move)

    def context_gradient(self, params: Sequence[Tensor]) -> PartialTensors:
        """``df/dc`` at other parameters and the same context, batch, mode and random state."""
        return self.pulled(self.direct_gradient(params))

    @property
    def direct(self) -> Tensors:
        """The context, and then what `once` has kept, if anything: what the loss is computed from.

        What was kept depends on the context as well; derivatives with respect to `direct` are taken
        with the one fixed while the other varies, and `pulled` puts them together.
        """
        return self.context if self._kept is None else (*self.context, *self._kept.heads)

    def direct_gradient(self, params: Sequence[Tensor]) -> PartialTensors:
        """As `context_gradient`, with respect to `direct`: nothing goes back through `once`."""
        shifted = detached(params)
        if self._parts is not None:
            return self._parts.context_gradient(shifted, self.context)
        direct = leaves(self.direct)
        context, heads = direct[: len(self.context)], direct[len(self.context) :]
        again = contextlib.nullcontext() if self._kept is None else self._kept.replayed(heads)
        with torch.enable_grad(), again:
            loss = self._loss(shifted, context)
            return differentiate(self.problem, [loss], direct)

    def pulled(self, direct: PartialTensors) -> PartialTensors:
        """From cotangents of `direct` to those of the context, back through `once`."""
        if self._kept is None:
            return direct
        count = len(self.context)
        return plus(direct[:count], self._kept.pull(direct[count:]))

    def move_context_gradient(self) -> PartialTensors:
        """``df/dc`` where the recorded move was made, from its own pass.

        Raises:
            MethodError: the method has not declared that it needs "context_gradient".
        """
        if self.move is None or self.move.context_gradient is None:
            raise MethodError(
                f"problem '{self.problem}': its hypergradient method asks for the context's "
                'gradient at the move, which was not recorded; declare needs = {"moves", '
                '"context_gradient"}',
                problem=self.problem,
            )
        return self.move.context_gradient

    def update_vjp(self, v: Sequence[Tensor]) -> Tensors:
        """``D v`` with D the derivative of the recorded move with respect to its gradient.

        Raises:
            MethodError: the method has not declared that it needs "moves" and "optimizer".
        """
        step = None if self.move is None else self.move.step
        if step is None:
            raise MethodError(
                f"problem '{self.problem}': its hypergradient method asks for the derivative of "
                'the update, which was not recorded; declare needs = {"moves", "optimizer"}',
                problem=self.problem,
            )
        return step.vjp(tuple(v))

    def optimizer_scale(self) -> Tensors:
        """What the optimizer divides its steps by, as it is now, in the parameters' shapes.

        Raises:
            MethodError: the method has not declared that it needs "second_moments".
        """
        if self._scale is None:
            raise MethodError(
                f"problem '{self.problem}': its hypergradient method asks for the second moments "
                'of the optimizer, which are not offered; declare needs = {"second_moments"}',
                problem=self.problem,
            )
        return self._scale()

    def curvature_vjp(self, u: Sequence[Tensor], z: Sequence[Tensor]) -> PartialTensors:
        """``d<z, H(w, c) u> / d(w, c)``: third derivatives, for solves that are differentiated."""
        with torch.enable_grad():
            graph = self._linearized()
            hu = differentiate(
                self.problem, graph.gradient, graph.params, u, create_graph=True, retain_graph=True
            )
            inner = dot(filled(hu, graph.params), z)
            wrt = (*graph.params, *graph.context)
            return differentiate(
                self.problem, [inner], wrt, create_graph=self.attached, retain_graph=True
            )

    def solve(self, solver: LinearSolver, v: Sequence[Tensor]) -> LinearSolution:
        """Solve ``(dg/dw)^T u = v``; where a graph is wanted, the solve is differentiable."""
        if self.attached:
            return differentiable_solve(self, solver, tuple(v))
        return solver(self, tuple(v))

    def at(self, params: Sequence[Tensor], context: Sequence[Tensor]) -> Condition:
        """The same condition at tensors of the same values."""
        return Condition(
            self.objective,
            tuple(params),
            tuple(context),
            problem=self.problem,
            learning_rate=self.learning_rate,
            memory=self.memory,
            parts=None if self._parts is None else self._parts.parts,
            slope=self._slope,
            scale=self._scale,
        )

    def _transposable(self) -> tuple[Tensors, PartialTensors]:
        """A cotangent u, and the products with it as functions of u."""
        if self._products_of is None:
            graph = self._linearized()
            self._check_dense(graph.gradient)
            with torch.enable_grad():
                u = leaves([torch.zeros_like(p) for p in graph.params])
                wrt = (*graph.params, *graph.context)
                made = differentiate(
                    self.problem, graph.gradient, wrt, u, create_graph=True, retain_graph=True
                )
            self._products_of = u, made
        return self._products_of

    def _check_dense(self, gradient: PartialTensors) -> None:
        """Autograd drops the derivative of a product with a sparse gradient, without a word."""
        if any(g is not None and g.is_sparse for g in gradient):
            raise DoubleBackwardError(
                f"problem '{self.problem}': the gradient of its loss is sparse, and autograd loses "
                "the derivative of a sparse gradient where a nested level, ForwardMode (or "
                "create_graph=True) asks for it; use sparse=False, or sparse_grad=False, in the "
                "loss",
                problem=self.problem,
            )

    def _gradient(self, params: Tensors, context: Tensors) -> PartialTensors:
        if self._slope is not None:
            return self._slope(params, context)
        loss = self._loss(params, context)
        return differentiate(self.problem, [loss], params, create_graph=True)

    def _linearized(self) -> Linearization:
        if self._graph is None and not self.attached:
            self._graph = self.memory.graph
        if self._graph is None:
            with torch.enable_grad():
                fresh = _views if self.attached else leaves
                params, context = fresh(self.params), fresh(self.context)
                gradient = self._gradient(params, context)
                if self.attached:
                    self._check_dense(gradient)
            self._graph = Linearization(params, context, gradient)
            if not self.attached:
                self.memory.graph = self._graph
        return self._graph

    def _loss(self, params: Tensors, context: Tensors) -> Tensor:
        if self.objective is None:
            raise MethodError(
                f"problems {self.problem} read each other, so their condition is the gradient of "
                "no one loss, which their hypergradient method asks for; choose Dense or Neumann",
                problem=self.problem,
            )
        return self.objective(params, context)

    @property
    def _streamed(self) -> MicroBatches | None:
        """The micro-batches, where there are several and no graph of them all yet."""
        return self._parts if self._graph is None and not self.attached else None

    def _products(self, u: Sequence[Tensor], wrt: Tensors) -> PartialTensors:
        """``(dg/dwrt)^T u`` on the one retained graph."""
        found = differentiate(
            self.problem,
            self._linearized().gradient,
            wrt,
            u,
            create_graph=self.attached,
            retain_graph=True,
        )
        return dense(found)


def _views(tensors: Sequence[Tensor]) -> Tensors:
    return tuple(t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in tensors)
