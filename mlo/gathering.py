"""Numbers that are not finite, gathered as flags on the device and read once a tick."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from mlo.condition import Condition
from mlo.hypergradients import Result
from mlo.nonfinite import Finding
from mlo.probe import Probe, Probing
from mlo.sweep import Gradient
from mlo.types import Tensors
from mlo.vectors import entries
from mlo.watch import Place


@dataclasses.dataclass(frozen=True)
class Flag:
    """Something that may have gone wrong.

    Attributes:
        bad: 0-dim, true where it has.
        place: in which update.
        finding: what it would be.
    """

    bad: Tensor
    place: Place
    finding: Finding


class Gathering(Probing):
    """Keeps a flag for everything that may not be finite; nothing waits for the device.

    Attributes:
        flags: in the order of computation.
    """

    def __init__(self, probe: Probe) -> None:
        super().__init__(probe)
        self.flags: list[Flag] = []
        self._place = Place(0, "", 0, ())
        self._taken = ""
        self._depth = 0

    def begin(self, place: Place) -> None:
        """Remember whose it is."""
        self._place = place

    def answering(self, label: str) -> None:
        """Count how deep responses are nested."""
        self._depth += 1

    def begun(self, name: str, start: Tensors) -> None:
        """Keep a flag for where a problem begins."""
        what = f"where problem '{name}' begins anew (start=) is not finite"
        self._keep(infinite(start), name, what)

    def loss(self, name: str, value: Tensor) -> None:
        """Keep a flag for a loss."""
        if self._depth == 0:
            self._taken = name
            self._keep(~value.isfinite(), name, f"the loss of problem '{name}' is not finite")

    def answered(
        self, label: str, method: object, cotangent: Tensors, result: Result, at: Condition
    ) -> None:
        """Keep flags for an answer, and for what it was the answer to."""
        self._depth -= 1
        if self._depth:
            return
        name, bad = self._taken, infinite(result.grads)
        self._keep(
            bad & infinite(cotangent).to(bad.device),
            name,
            f"the gradient of problem '{name}' is not finite",
        )
        self._keep(
            bad,
            label,
            f"the adjoint of problem '{label}' ({type(method).__name__}) in the gradient of "
            f"problem '{name}' is not finite",
            name,
        )

    def gradient(self, name: str, gradient: Gradient) -> None:
        """Keep a flag for a total gradient."""
        bad = infinite(gradient.values)
        self._keep(bad, name, f"the gradient of problem '{name}' is not finite")

    def stepping(
        self,
        name: str,
        optimizer: torch.optim.Optimizer,
        params: Sequence[nn.Parameter],
        *,
        trial: bool,
    ) -> Callable[[], None]:
        """Keep a flag for parameters that a step makes infinite."""
        stood = infinite(params)
        what = (
            f"the parameters of problem '{name}' are not finite after its step by "
            f"{type(optimizer).__name__}"
        )
        return lambda: self._keep(~stood & infinite(params), name, what)

    def _keep(self, bad: Tensor, problem: str, what: str, moving: str | None = None) -> None:
        moving = problem if moving is None else moving
        self.flags.append(Flag(bad, self._place, Finding(problem, what, moving)))


def infinite(tensors: Iterable[Tensor | None]) -> Tensor:
    """Whether an entry is NaN or infinite, 0-dim on their device: by the largest of them."""
    present = [entries(t.detach()) for t in tensors if t is not None]
    present = [t for t in present if t.numel() > 0]
    if not present:
        return torch.tensor(False)
    return ~torch.nn.utils.get_total_norm(present, math.inf).isfinite()


def read(values: Sequence[Tensor | float]) -> list[float]:
    """The values as numbers: one transfer for each device that holds some of them."""
    found = [
        float(v) if not isinstance(v, Tensor) or v.device.type == "cpu" else 0.0 for v in values
    ]
    devices: dict[torch.device, list[int]] = {}
    for i, value in enumerate(values):
        if isinstance(value, Tensor) and value.device.type != "cpu":
            devices.setdefault(value.device, []).append(i)
    for device, places in devices.items():
        widest = torch.float32 if device.type == "mps" else torch.float64
        there = [v.to(widest) for i in places if isinstance(v := values[i], Tensor)]
        for i, number in zip(places, torch.stack(there).tolist(), strict=True):
            found[i] = number
    return found
