"""Numbers that are not finite: looked for at once, and named where they appear first."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from mlo.condition import Condition
from mlo.errors import NonfiniteError
from mlo.hypergradients import Result
from mlo.incident import Mark
from mlo.probe import Probe, Probing
from mlo.program import Program
from mlo.randomness import RandomState
from mlo.records import Outcome
from mlo.setting import Setting
from mlo.snapshot import StepUndo
from mlo.sweep import Gradient
from mlo.types import PartialTensors, Tensors
from mlo.vectors import entries
from mlo.watch import Place


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is not finite.

    Attributes:
        problem: the culprit.
        what: the same in words, such as ``the gradient of problem 'net' is not finite``.
        moving: who was making a move, be it on trial.
    """

    problem: str
    what: str
    moving: str

    def error(self, place: Place) -> NonfiniteError:
        """The error that says so."""
        trial = f", in a move on trial for problem '{place.name}'"
        what = f"tick {place.tick}: {self.what}{trial if self.moving != place.name else ''}"
        error = NonfiniteError(
            f"{what}. The error's incident holds the batch and the state before that move, and "
            "mlo.replay makes it again; lower a learning rate, clip the gradient, or let "
            "such ticks be taken back, by Engine(guards=mlo.Guards(on_nonfinite='skip'))",
            problem=self.problem,
        )
        error.what = what
        return error


class Looking(Probing):
    """Reads every number as it comes and raises at the first that is not finite.

    The step that it raises after is taken back, so that nothing of the move is applied.

    Args:
        program: the compiled declaration.
        probe: evaluates losses a second time.
        drawing: problems whose updates have drawn from NumPy; those that do are added.

    Attributes:
        place: which update is being made.
    """

    def __init__(self, program: Program, probe: Probe, drawing: set[str]) -> None:
        super().__init__(probe)
        self.program = program
        self._drawing = drawing
        self.place = Place(0, "", 0, ())
        self._mark: Mark | None = None
        self._random: RandomState | None = None
        self._taken = ""  # whose gradient is being taken
        self._inside: list[str] = []
        self._first: Finding | None = None

    def begin(self, place: Place) -> None:
        """Remember whose it is, and the random state, if the setting of the move will not do."""
        self.place, self._mark, self._random = place, None, None
        if not place.bare:
            self._mark = Mark(self.program.devices, whole=place.name in self._drawing)

    def end(self) -> None:
        """Remember who draws from NumPy."""
        if self._mark is not None and self._mark.numpy_drew:
            self._drawing.add(self.place.name)

    def random(self) -> RandomState:
        """The random state before the update.

        Raises:
            RuntimeError: none has begun.
        """
        state = self._random if self._mark is None else self._mark.state()
        if state is None:
            raise RuntimeError("no update has begun")
        return state

    def under(self, name: str, setting: Setting) -> None:
        """Remember the random state that is kept already."""
        if self._random is None:
            self._random = setting.random

    def answering(self, label: str) -> None:
        """Remember whose it is."""
        self._inside.append(label)

    def begun(self, name: str, start: Tensors) -> None:
        """Look at where a problem begins.

        Raises:
            NonfiniteError: it is not finite.
        """
        if not is_finite(start):
            counts = counted(zip(self.program.variables[name], start, strict=True))
            self._taken = name
            self._raise(name, f"where problem '{name}' begins anew (start=) is not finite {counts}")

    def loss(self, name: str, value: Tensor) -> None:
        """Look at a loss.

        Raises:
            NonfiniteError: it is not finite.
        """
        if self._inside:  # it is that of a move which was looked at when it was made
            return
        self._taken = name
        if not math.isfinite(float(value)):
            self._raise(name, f"the loss of problem '{name}' is {float(value)}")

    def answered(
        self, label: str, method: object, cotangent: Tensors, result: Result, at: Condition
    ) -> None:
        """Look at an answer, and if that is not finite, at what it was the answer to.

        One within another is only remembered: a solver may do without it.

        Raises:
            NonfiniteError: it is not finite.
        """
        self._inside.pop()
        if is_finite(result.grads):
            if not self._inside:
                self._first = None
            return
        if self._first is None:
            self._first = self._cause(label, method, cotangent, result, at)
        if not self._inside:
            self._raise(self._first.problem, self._first.what)

    def gradient(self, name: str, gradient: Gradient) -> None:
        """Look at a total gradient.

        Raises:
            NonfiniteError: it is not finite.
        """
        if math.isfinite(float(gradient.norm)) or is_finite(gradient.values):
            return
        counts = counted(zip(self.program.variables[name], gradient.values, strict=True))
        self._raise(name, f"the gradient of problem '{name}' is not finite {counts}")

    def stepping(
        self,
        name: str,
        optimizer: torch.optim.Optimizer,
        params: Sequence[nn.Parameter],
        *,
        trial: bool,
    ) -> Callable[[], None]:
        """Copy what the step changes, and look at the parameters when it is made.

        Those that were not finite before are not the step's doing.
        """
        undo = StepUndo(optimizer, params) if not trial else None
        stood = [p.detach().clone() for p in params] if undo is None else undo.stood

        def stepped() -> None:
            if is_finite(params) or not is_finite(stood):
                return
            counts = counted(zip(self.program.variables[name], params, strict=True))
            if undo is not None:
                undo.undo()
            self._taken = name
            self._raise(
                name,
                f"the parameters of problem '{name}' are not finite after its step by "
                f"{type(optimizer).__name__} {counts}",
            )

        return stepped

    def _cause(
        self, label: str, method: object, cotangent: Tensors, result: Result, at: Condition
    ) -> Finding:
        """Who is to blame for an answer that is not finite."""
        name = self._taken
        if is_finite(cotangent):
            counts = counted(_named(self.program, label, at, result.grads))
            outcome = result.info.outcome
            told = outcome.failed and outcome is not Outcome.NONFINITE
            return Finding(
                label,
                f"the adjoint of problem '{label}' ({type(method).__name__}) in the gradient of "
                f"problem '{name}' is not finite {counts}" + (f": {outcome.value}" if told else ""),
                name,
            )
        if self._inside:
            outer = self._inside[-1]
            return Finding(
                outer,
                f"the adjoint of problem '{outer}' in the gradient of problem '{name}' is not "
                f"finite: neither is the derivative of its loss with respect to '{label}'",
                name,
            )
        counts = counted((label, t) for t in cotangent)
        return Finding(
            name,
            f"the gradient of problem '{name}' is not finite: neither is the derivative of its "
            f"loss with respect to '{label}' {counts}",
            name,
        )

    def _raise(self, problem: str, what: str) -> None:
        raise Finding(problem, what, self._taken).error(self.place)


def is_finite(tensors: Iterable[Tensor | None]) -> bool:
    """Whether all entries are finite; what is `None` is. Waits for the device."""
    for t in tensors:
        if t is None:
            continue
        x = entries(t.detach()) if t.is_sparse else t.detach()
        # A norm is faster than a look at every entry, but it may overflow where none is infinite.
        if not math.isfinite(torch.linalg.vector_norm(x)) and not x.isfinite().all():
            return False
    return True


def counted(named: Iterable[tuple[str, Tensor | None]]) -> str:
    """``(3 NaN, 0 inf of 120 entries, in 'weight')``."""
    tensors = [(name, entries(t.detach())) for name, t in named if t is not None]
    nan = sum(int(t.isnan().sum()) for _, t in tensors)
    inf = sum(int(t.isinf().sum()) for _, t in tensors)
    places = dict.fromkeys(name for name, t in tensors if not t.isfinite().all())
    shown = ", ".join(f"'{name}'" for name in list(places)[:3]) + ", ..." * (len(places) > 3)
    return f"({nan} NaN, {inf} inf of {sum(t.numel() for _, t in tensors)} entries, in {shown})"


def _named(
    program: Program, label: str, at: Condition, grads: PartialTensors
) -> Iterator[tuple[str, Tensor | None]]:
    """What a method answered, by the variables that it answered for, where these are known."""
    names: list[str] = []
    if label in program.problems:
        reads = program.graph.context(label)
        keys = [f"{read}.{key}" for read in reads for key in program.variables[read]]
        # Behind those may come the place where the problem began anew.
        own = [f"{label}.{key}" for key in program.variables[label]]
        names = [*(keys[i] for i in at.positions), *own]
    for i, grad in enumerate(grads):
        yield (names[i] if i < len(names) else label), grad
