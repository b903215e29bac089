"""What one tick of an engine costs: passes through each network, floating-point operations."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper
from torch.utils.hooks import RemovableHandle

from mlo.engine import Engine
from mlo.errors import ConfigurationError

Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Passes:
    """Passes through one network.

    Attributes:
        forward: calls of the network.
        backward: backward passes that reach its weights.
        partial: backward passes that reach its other arguments alone, such as mixing weights; they
            leave the gradients of the weights out, which is about half of the work.
        double: backward passes through a forward pass and a backward pass of it, which is what an
            exact product with a second derivative takes.
    """

    forward: int = 0
    backward: int = 0
    partial: int = 0
    double: int = 0


def count_passes(engine: Engine, networks: Mapping[str, nn.Module]) -> dict[str, Passes]:
    """Make one tick, and count the passes through each of the networks in it.

    The tick is bit for bit the one that would have been made without counting.

    Args:
        engine: makes the tick.
        networks: name -> network that returns one tensor; a module of a declared problem or a part
            of one. Its first layer with parameters must come before what other arguments enter.

    Returns:
        Name -> passes.

    Raises:
        ConfigurationError: a network has no parameters.
    """
    with contextlib.ExitStack() as stack:
        counters = {n: stack.enter_context(_counting(n, net)) for n, net in networks.items()}
        engine.step()
        return {name: counter.passes() for name, counter in counters.items()}


class OperationCounter(TorchDispatchMode):
    """Counts floating-point operations inside a `with`, a multiply-add as two of them.

    Those of matrix products and convolutions are counted, by torch's formulas, but for gradients of
    grouped convolutions, which torch takes for full ones. `FlopCounterMode` would hang hooks on the
    modules, which fail where a gradient with respect to leaves alone is asked for.

    Attributes:
        count: operations so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and add what it takes."""
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        formula = _FORMULAS.get(function._overloadpacket)
        if formula is not None:
            self.count += formula(*args, **kwargs, out_val=result)
        return result


class _Counter:
    """Sees which passes run through the output and the first layer of each call of a network."""

    def __init__(self) -> None:
        self.calls = 0
        self.seen: dict[tuple[int, int], set[str]] = {}

    def begin(self, *_: Any) -> None:
        """The network is called."""
        self.calls += 1

    def watch(self, what: str) -> Callable[..., Tensor]:
        """A forward hook that watches what runs backward through an output."""

        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            call = self.calls

            def tell(kind: str) -> None:
                # One call of autograd is one pass, also where it runs within another one.
                key = call, torch._C._current_graph_task_id()
                self.seen.setdefault(key, set()).add(f"{kind} {what}")

            return _Watched.apply(output, tell)

        return hook

    def passes(self) -> Passes:
        """What was seen so far."""
        kinds = [_kind(marks) for marks in self.seen.values()]
        return Passes(self.calls, *(kinds.count(kind) for kind in ("weights", "rest", "double")))


def _kind(marks: set[str]) -> str:
    # A double backward pass runs through the forward pass too, which is a part of it.
    if any(mark.startswith("twice") for mark in marks):
        return "double"
    return "weights" if "once first" in marks else "rest"


@contextlib.contextmanager
def _counting(name: str, network: nn.Module) -> Iterator[_Counter]:
    first = next((m for m in network.modules() if any(True for _ in m.parameters(False))), None)
    if first is None:
        raise ConfigurationError(
            f"networks: expected '{name}' to have parameters, found none. Leave it out."
        )
    counter = _Counter()
    handles: Sequence[RemovableHandle] = (
        network.register_forward_pre_hook(counter.begin),
        first.register_forward_hook(counter.watch("first")),
        network.register_forward_hook(counter.watch("output")),
    )
    try:
        yield counter
    finally:
        for handle in handles:
            handle.remove()


class _Watched(torch.autograd.Function):
    """The identity; tells when a backward pass runs through it, at any order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tell: Tell) -> Tensor:
        ctx.tell = tell
        return x.clone()  # what follows may work in place

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        ctx.tell("once")
        return _WatchedTwice.apply(cotangent, ctx.tell), None


class _WatchedTwice(torch.autograd.Function):
    """The identity on a cotangent."""

    @staticmethod
    def forward(ctx: Any, cotangent: Tensor, tell: Tell) -> Tensor:
        ctx.tell = tell
        return cotangent.clone()

    @staticmethod
    def backward(ctx: Any, x: Tensor) -> tuple[Tensor, None]:
        ctx.tell("twice")
        return x, None


def _convolution_backward(
    cotangent: Sequence[int], x: Sequence[int], weight: Sequence[int], *rest: Any, out_shape: Any
) -> int:
    """Each of the two gradients takes as much as the convolution, with any number of groups."""
    *_, transposed, _padding, _groups, wanted = rest
    places = math.prod(x if transposed else cotangent)
    return 2 * places * math.prod(weight[1:]) * (wanted[0] + wanted[1])


_FORMULAS = {
    **flop_registry,
    torch.ops.aten.convolution_backward: shape_wrapper(_convolution_backward),
}
