"""`once`: the part of a loss that does not depend on the problem's own parameters.

A difference of first derivatives evaluates a loss at shifted parameters of its own problem. What
the loss computes from other problems alone is the same there, so it is computed once, in the move
itself; what flows back into it is summed first, and goes back through it once.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from mlo.differentiation import differentiate
from mlo.errors import LossError
from mlo.guards import leads_to
from mlo.randomness import RandomState
from mlo.types import PartialTensors, Tensors
from mlo.vectors import plus

P = ParamSpec("P")
T = TypeVar("T")


class _Memo(Protocol):
    def take(self, call: Callable[[], Any]) -> Any:
        """What the call returns, or returned when the move was made."""


_MEMO: contextvars.ContextVar[_Memo | None] = contextvars.ContextVar("once", default=None)


def once(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` within a loss, where the result is independent of the problem's parameters.

    It returns what the call returns; the numbers are the same with and without it. Methods that
    evaluate a loss several times at one point (`FiniteDifference`, `Sama`) then compute this part
    once, and differentiate it once. Wrap what is expensive and reads other problems only, such as
    features by an encoder that is trained above, or the losses of a network below. Where a call is
    not made again, buffers that it would change stay as they were; the rest of the loss should not
    read them.

    Args:
        function: what to call.
        args: its arguments.
        kwargs: its keyword arguments.

    Returns:
        A tensor, or a pytree of tensors, numbers, words and None; not of other objects, which
        could hide tensors.

    Raises:
        LossError: the result depends on the parameters of the problem whose loss it is, as far as
            autograd can see, or holds other objects; told by the methods that make use of it.
    """
    memo = _MEMO.get()
    if memo is None:
        return function(*args, **kwargs)
    with _during(None):
        result: T = memo.take(lambda: function(*args, **kwargs))
    return result


def recorded() -> Tensors:
    """The tensors that are being kept now, whose graphs the loss does not contain."""
    memo = _MEMO.get()
    return memo.kept(()).heads if isinstance(memo, Recording) else ()


@dataclasses.dataclass(frozen=True)
class _Part:
    """The result of one call.

    Attributes:
        leaves: of the result as a tree, tensors with their graphs.
        handed: copies without them, for those that derivatives go through; what later calls
            compute from the result depends on these.
        spec: the structure of the tree.
        random: the random states after the call.
    """

    leaves: tuple[Any, ...]
    handed: Tensors
    spec: TreeSpec
    random: RandomState

    @property
    def heads(self) -> Tensors:
        """The tensors that derivatives go through."""
        return tuple(t for t in self.leaves if _differentiable(t))

    def filled(self, heads: Iterable[Tensor]) -> Any:
        """The result with others in the place of `heads`; the loss may write into the rest."""
        fresh = iter(heads)
        leaves = [
            next(fresh) if _differentiable(t) else t.clone() if isinstance(t, Tensor) else t
            for t in self.leaves
        ]
        return tree_unflatten(leaves, self.spec)


class Kept:
    """What the calls of `once` gave in the evaluation that a move was made with.

    Args:
        problem: whose loss it is.
        context: the context tensors of that evaluation; derivatives end there.
        parts: one for each call.
    """

    def __init__(self, problem: str, context: Tensors, parts: Sequence[_Part]) -> None:
        self.problem = problem
        self.context = context
        self._parts = tuple(parts)

    @property
    def heads(self) -> Tensors:
        """All tensors in the results that derivatives go through."""
        return tuple(t for part in self._parts for t in part.heads)

    def restricted(self, context: Tensors) -> Kept:
        """The same for a part of the context."""
        return Kept(self.problem, context, self._parts)

    @contextlib.contextmanager
    def replayed(self, heads: Tensors) -> Iterator[None]:
        """Let `once` return, call by call, what it returned then, with these for `heads`."""
        replay = _Replay(self.problem, self._parts, heads)
        with _during(replay):
            yield
        replay.check_over()

    def pull(self, cotangents: Sequence[Tensor | None]) -> PartialTensors:
        """Cotangents of the context, for cotangents of `heads`.

        The last call first: what it was given of earlier ones adds to their cotangents.
        """
        wanted = list(cotangents)
        total: PartialTensors = (None,) * len(self.context)
        for number in reversed(range(len(self._parts))):
            earlier = [t for part in self._parts[:number] for t in part.handed]
            here, wanted = wanted[len(earlier) :], wanted[: len(earlier)]
            pairs = zip(self._parts[number].heads, here, strict=True)
            active = [(h, v) for h, v in pairs if v is not None]
            found = differentiate(
                self.problem,
                [h for h, _ in active],
                (*self.context, *earlier),
                [v for _, v in active],
                retain_graph=True,
            )
            total = plus(total, found[: len(self.context)])
            wanted = list(plus(tuple(wanted), found[len(self.context) :]))
        return total


class Recording:
    """Keeps what `once` returns inside of `active`, and hands the loss copies without graphs.

    Args:
        problem: whose loss it is.
        own: the problem's parameters in this evaluation.
        devices: accelerators whose random state counts.
    """

    def __init__(self, problem: str, own: Tensors, devices: Sequence[torch.device]) -> None:
        self.problem = problem
        self._own = own
        self._devices = devices
        self._parts: list[_Part] = []

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Inside, calls of `once` are kept."""
        with _during(self):
            yield

    def take(self, call: Callable[[], Any]) -> Any:
        """Make the call and keep its result.

        Raises:
            LossError: it depends on the problem's own parameters.
        """
        leaves, spec = tree_flatten(call())
        for leaf in leaves:
            self._check(leaf)
        heads = [t for t in leaves if _differentiable(t)]
        handed = tuple(t.detach().requires_grad_() for t in heads)
        random = RandomState.capture(self._devices)
        part = _Part(tuple(leaves), handed, spec, random)
        self._parts.append(part)
        return part.filled(handed)

    def _check(self, leaf: Any) -> None:
        if not isinstance(leaf, Tensor | int | float | complex | str | None):
            raise LossError(
                f"problem '{self.problem}': what its loss computes by once(...) holds a "
                f"{type(leaf).__name__}, which could hide tensors; return tensors, numbers and "
                "words, in lists, tuples and dictionaries",
                problem=self.problem,
            )
        if isinstance(leaf, Tensor) and leads_to(leaf, self._own):
            raise LossError(
                f"problem '{self.problem}': what its loss computes by once(...) depends on its own "
                "parameters, so it is not the same wherever the loss is evaluated; call the "
                "function without once, or leave that part out of it",
                problem=self.problem,
            )

    def kept(self, context: Tensors) -> Kept:
        """What was kept, in an evaluation with this context."""
        return Kept(self.problem, context, self._parts)


class _Replay:
    def __init__(self, problem: str, parts: Sequence[_Part], heads: Tensors) -> None:
        self._problem = problem
        self._parts = list(parts)
        self._heads = list(heads)

    def take(self, call: Callable[[], Any]) -> Any:
        if not self._parts:
            raise self._other("more")
        part = self._parts.pop(0)
        heads = [self._heads.pop(0) for _ in part.handed]
        part.random.restore()  # later draws go on from there
        return part.filled(heads)

    def check_over(self) -> None:
        """All calls were made again.

        Raises:
            LossError: some were not.
        """
        if self._parts:
            raise self._other("less")

    def _other(self, how: str) -> LossError:
        return LossError(
            f"problem '{self._problem}': its loss called once(...) {how} often when it was "
            "evaluated again on the same batch; let it do the same each time",
            problem=self._problem,
        )


@contextlib.contextmanager
def _during(memo: _Memo | None) -> Iterator[None]:
    token = _MEMO.set(memo)
    try:
        yield
    finally:
        _MEMO.reset(token)


def _differentiable(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.requires_grad
