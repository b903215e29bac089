"""What `check_hypergradient` found, as a value with a table."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping

from mlo.errors import CheckError, listed
from mlo.testing.differences import RESOLUTION
from mlo.testing.losses import LossCheck


class Reference(enum.Enum):
    """What a total gradient is compared with."""

    MOVES = "moves"
    SOLUTION = "solution"


@dataclasses.dataclass(frozen=True)
class HypergradientCheck:
    """The result of one check; all errors are relative, over the checked directions.

    Attributes:
        problem: whose total gradient.
        reference: what it was compared with.
        directions: how many directional derivatives were compared, besides the one along the
            total gradient itself.
        error: of the total gradient by exact rules, against differences.
        resolution: what rounding may do to those differences that see most.
        bias: of the total gradient by the program's own methods, against exact rules.
        biases: problem -> bias that its own method alone brings in (NaN where it cannot serve
            among exact rules), and `nested=...` -> that of
            the engine's option, where a problem anticipates.
        methods: problem -> the method it answers by.
        losses: the losses on their own, lowest problem first.
        clipped: problems with a `clip_norm`, whose factor counts as constant.
        cut: problems with `constant=`, which differences do not know of.
    """

    problem: str
    reference: Reference
    directions: int
    error: float
    resolution: float
    bias: float
    biases: Mapping[str, float]
    methods: Mapping[str, str]
    losses: tuple[LossCheck, ...]
    clipped: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()

    def judge(self, tolerance: float, bias: float) -> None:
        """Nothing where error and bias are within what is allowed.

        Raises:
            CheckError: one is not; the message says which, and whose.
        """
        if self.resolution > RESOLUTION:
            small = (
                "is zero here"
                if math.isinf(self.resolution)
                else f"is so small here that rounding makes up {self.resolution:.1e} of the "
                f"differences (allowed {RESOLUTION:.0e})"
            )
            raise CheckError(
                f"nothing to see: problem '{self.problem}': its total gradient {small}; check "
                "it at another point, or with a larger step=",
                problem=self.problem,
            )
        what = "replayed moves" if self.reference is Reference.MOVES else "re-solved program"
        if not self.error <= tolerance:
            raise CheckError(
                f"wrong hypergradient: problem '{self.problem}': even with exact rules its total "
                f"gradient is off by {self.error:.1e} from differences of the {what} (allowed "
                f"{tolerance:.0e}). {self._cause()}",
                problem=self.problem,
            )
        if not self.bias <= bias:
            known_alone = [n for n, b in self.biases.items() if not math.isnan(b)]
            worst = max(known_alone, key=lambda n: self.biases[n], default=self.problem)
            known = worst in self.methods
            culprit = f"problem '{worst}': hypergradient={self.methods[worst]}" if known else worst
            own = self.biases.get(worst, self.bias)
            raise CheckError(
                f"wrong method: {culprit} makes the total gradient of '{self.problem}' differ by "
                f"{own:.1e} from the exact rule, which agrees with differences of the "
                f"{what} to {self.error:.1e} "
                f"(together {self.bias:.1e}, allowed {bias:.0e}). If it is an approximation that "
                "you want, pass the bias= that you accept",
                problem=worst if known else self.problem,
            )

    def _cause(self) -> str:
        if self.clipped:
            return (
                f"The factor of clip_norm= of {listed(self.clipped)} counts as constant, which is "
                "not the slope of a step that is clipped; check it without clipping"
            )
        if self.cut:
            return (
                f"constant= of {listed(self.cut)} leaves out a route that differences follow; "
                "check the program without it"
            )
        return (
            "A loss that detaches what it reads from below does this, or one that depends on what "
            "is not among its arguments"
        )

    def _rule(self, name: str) -> str:
        return f"{name} by {self.methods[name]}" if name in self.methods else name

    def __str__(self) -> str:
        """A table that fits 80 columns."""
        lines = [
            f"{self.problem}: total gradient against {self.reference.value}, "
            f"{self.directions} direction{'' if self.directions == 1 else 's'}",
            f"  error beyond rounding         {self.error:9.1e}",
            f"  rounding of the differences   {self.resolution:9.1e}",
            f"  bias of the methods together  {self.bias:9.1e}",
        ]
        lines += [
            f"    {_short(self._rule(name)):<27} {bias:9.1e}" for name, bias in self.biases.items()
        ]
        if self.losses:
            lines.append("  losses                            first    second derivatives")
            lines += [
                f"    {_short(loss.problem):<27} {loss.first:9.1e} {loss.second:9.1e}"
                for loss in self.losses
            ]
        return "\n".join(lines)


def _short(name: str) -> str:
    """Names that leave room for the numbers in 80 columns."""
    return name if len(name) <= 50 else name[:49] + "…"
