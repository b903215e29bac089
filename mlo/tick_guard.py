"""The moves of one tick, made so that they can be taken back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from mlo.errors import CheckpointError, DeclarationError, NonfiniteError
from mlo.gathering import Gathering, read
from mlo.guarding import Guards
from mlo.health import Made
from mlo.incident import Incident
from mlo.mover import Mover
from mlo.nonfinite import Looking
from mlo.plain import copied
from mlo.probe import Probe, Probing
from mlo.problem_state import problem_state
from mlo.randomness import RandomState
from mlo.records import MoveRecord
from mlo.schedule import Plan
from mlo.snapshot import Snapshot
from mlo.streams import Stream
from mlo.watch import UNWATCHED, Watch

Told = Callable[[MoveRecord], None] | None


class TickGuard:
    """Makes the moves of a tick, looks for what is not finite, and does about it what was asked.

    Args:
        mover: makes the moves.
        streams: where batches come from.
        guards: what was asked.

    Attributes:
        incident: the last one; `None` where there was none.
        deferred: whether flags are read at the end of a tick.
        last: what `"rollback"` goes back to.
        taken: in which tick that was taken.
        in_row: ticks that were taken back, one after the other, until now.

    Raises:
        DeclarationError: a tick is to be taken back, but a scheduler does not say its state.
    """

    def __init__(self, mover: Mover, streams: Mapping[str, Stream], guards: Guards) -> None:
        self.mover = mover
        self.streams = streams
        self.guards = guards
        self.incident: Incident | None = None
        problems = mover.program.problems.values()
        silent = [
            p.name
            for p in problems
            if p.scheduler is not None and not hasattr(p.scheduler, "state_dict")
        ]
        if silent and guards.on_nonfinite in ("skip", "rollback"):
            raise DeclarationError(
                f"Engine(guards=...): on_nonfinite='{guards.on_nonfinite}' takes ticks back, but "
                f"the scheduler of problem '{silent[0]}' has no state_dict() to be taken back by; "
                "give it state_dict() and load_state_dict(), or take one of "
                "torch.optim.lr_scheduler",
                problem=silent[0],
            )
        # A tick that cannot be taken back has its numbers read one by one, on any device.
        self.deferred = bool(mover.program.devices) and not silent
        self._probe = Probe(active=guards.probe)
        self._drawing: set[str] = set()
        self.last: Snapshot | None = None
        self.taken: int | None = None
        self.in_row = 0

    def make(self, plan: Plan, told: Told) -> Made:
        """Make the moves of a tick.

        Args:
            plan: of the tick.
            told: is told of every move as it is made.

        Returns:
            What it came to.

        Raises:
            NonfiniteError: something was not finite, and the tick is not to be taken back.
            ReplayError: a loss has another value when it is evaluated again.
        """
        before = self._before(plan)
        try:
            if self.guards.on_nonfinite == "ignore":
                made, _ = _read_together(self._moves(plan, told, Probing(self._probe)), [])
            elif self.deferred and before is not None:
                made = self._deferred(plan, told, before)
            else:
                made = _read(self._moves(plan, told, self._looking()))
        except NonfiniteError as error:
            self.incident = error.incident
            return self._after(error, plan, before)
        self.in_row = 0
        return made

    def _before(self, plan: Plan) -> Snapshot | None:
        """Keep what the tick, or many of them, may have to be taken back to."""
        way = self.guards.on_nonfinite
        if way == "rollback" and (self.last is None or plan.tick % self.guards.rollback_every == 0):
            self.last, self.taken = Snapshot.take(self.mover), plan.tick
        if way == "skip" or (self.deferred and way != "ignore"):
            return Snapshot.take(self.mover, plan.order)
        return None

    def _after(self, error: NonfiniteError, plan: Plan, before: Snapshot | None) -> Made:
        """Take back what is to be taken back; raise where nothing is, or too often in a row."""
        target, done = before, "the tick was taken back"
        if self.guards.on_nonfinite == "rollback":
            target, done = self.last, f"everything went back to the beginning of tick {self.taken}"
        if target is None or self.guards.on_nonfinite == "raise":
            raise error
        target.restore(self.mover)
        self.in_row += 1
        if self.in_row > self.guards.patience:
            error.add_note(f"{self.in_row} ticks in a row were taken back (Guards(patience=...))")
            raise error
        return Made(error=error, taken_back=f"{error.what}; {done}")

    def _deferred(self, plan: Plan, told: Told, before: Snapshot) -> Made:
        """Read the flags when the tick is over; if there was something, make it again and look."""
        random = RandomState.capture(self.mover.program.devices)
        watch = Gathering(self._probe)
        moves, failure = [], None
        try:
            moves = self._moves(plan, told, watch)
        except Exception as error:
            failure = error  # perhaps for the very reason that something was not finite
        made, flags = _read_together(moves, [flag.bad for flag in watch.flags])
        bad = next((flag for flag, up in zip(watch.flags, flags, strict=True) if up), None)
        if bad is None:
            if failure is not None:
                raise failure
            return made
        before.restore(self.mover)
        random.restore()
        self._moves(plan, None, self._looking())
        before.restore(self.mover)
        lost = bad.finding.error(bad.place)
        lost.add_note("it was finite when the tick was made again, so that nothing can be replayed")
        raise lost from failure

    def _moves(self, plan: Plan, told: Told, watch: Watch) -> list[MoveRecord]:
        moves = []
        self.mover.watch = watch
        try:
            for i, name in enumerate(plan.order):
                for record in self.mover.move(
                    name, plan.tick, due=plan.order, later=plan.order[i + 1 :]
                ):
                    moves.append(record)
                    if told is not None:
                        told(record)
        except NonfiniteError as error:
            if isinstance(watch, Looking):
                self._keep_incident(error, watch)
            raise
        finally:
            self.mover.watch = UNWATCHED
            self.mover.end_tick()
        return moves

    def _looking(self) -> Looking:
        return Looking(self.mover.program, self._probe, self._drawing)

    def _keep_incident(self, error: NonfiniteError, watch: Looking) -> None:
        """Keep what is needed to make the offending move again; nothing of it has been applied."""
        program, place = self.mover.program, watch.place
        try:
            error.incident = Incident(
                place.tick,
                error.problem or "",
                error.what,
                place,
                {name: tuple(stream.held) for name, stream in self.streams.items()},
                watch.random(),
                {n: copied(problem_state(p)) for n, p in program.problems.items()},
                self.mover.memory(),
            )
        except CheckpointError as reason:
            error.add_note(f"nothing was kept to replay it: {reason}")


def _read(moves: list[MoveRecord]) -> Made:
    """Read losses and outcomes of all moves one by one, which is fast where they are."""
    losses = [float(move.loss) for move in moves]
    codes = [tuple([int(response.info.code) for response in move.responses]) for move in moves]
    return Made(tuple(moves), tuple(losses), tuple(codes))


def _read_together(moves: list[MoveRecord], flags: list[Tensor]) -> tuple[Made, list[float]]:
    """Read losses and outcomes of all moves, and flags, together."""
    codes = [response.info.code for move in moves for response in move.responses]
    numbers = read([*(move.loss for move in moves), *codes, *flags])
    losses, rest = numbers[: len(moves)], iter(numbers[len(moves) :])
    found = tuple(tuple(int(next(rest)) for _ in move.responses) for move in moves)
    return Made(tuple(moves), tuple(losses), found), list(rest)
