"""Everything that a run changes in an engine, as plain values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mlo.description import check_same, described_program, described_versions
from mlo.devices import generating
from mlo.errors import CheckpointError
from mlo.move_state import Unpacker, packed_memory, unpacker_of
from mlo.plain import copied, differences
from mlo.problem_state import load_problem_state, problem_state
from mlo.randomness import RandomState
from mlo.snapshot import Snapshot

if TYPE_CHECKING:
    from mlo.engine import Engine
    from mlo.tick_guard import TickGuard

FORMAT = 1
"""Of the values below; another one is not read."""

PARTS = (
    *("format", "versions", "program", "tick", "counts", "problems"),
    *("streams", "memory", "fresh", "guard", "health", "random"),
)

State = Mapping[str, Any]


def engine_state(engine: Engine) -> dict[str, Any]:
    """The state between two ticks; tensors are those of the engine, not copies.

    Raises:
        CheckpointError: a part cannot be held by a file.
    """
    mover, program = engine._mover, engine._program
    program.occupation.check()
    return {
        "format": FORMAT,
        "versions": described_versions(),
        "program": described_program(program, engine.schedule, engine._streams),
        "tick": engine.tick,
        "counts": dict(engine._counts),
        "problems": {name: problem_state(p) for name, p in program.problems.items()},
        "streams": {name: stream.state_dict() for name, stream in engine._streams.items()},
        "memory": packed_memory(mover.memory()),
        "fresh": dict(mover.restarts.fresh),
        "guard": _guard_state(engine._guard),
        "health": engine._health.state_dict(),
        "random": RandomState.capture(generating(program.devices)).plain(),
    }


def load_engine_state(engine: Engine, state: State, *, other_versions: bool) -> None:
    """Put a state back; where that fails, everything is as it was before.

    Raises:
        CheckpointError: it is no state of this program, or does not come back as it was saved.
    """
    check_state(engine, state, other_versions=other_versions)
    before = copied(engine_state(engine))
    kept = {name: s.kept() for name, s in engine._streams.items() if s.inexact}
    try:
        _load(engine, state)
        _check_exact(engine, state)
    except BaseException as error:
        done = _taken_back(engine, before, kept)
        if isinstance(error, KeyError | TypeError | ValueError | AttributeError | RuntimeError):
            raise CheckpointError(
                f"checkpoint: the state cannot be taken up ({type(error).__name__}: {error}); "
                f"{done}. It is damaged, or a load_state_dict() refuses it"
            ) from error
        raise


def _taken_back(engine: Engine, before: State, kept: Mapping[str, Any]) -> str:
    """Put everything where it was; say whether that could be done."""
    try:
        _load(engine, before, kept)
    except Exception as error:  # such as a scheduler that refuses its own state as well
        return f"nor could the way back be gone ({error}), so that the engine must be built anew"
    return "nothing was changed"


def check_state(engine: Engine, state: State, *, other_versions: bool) -> None:
    """Refuse what is no state of this program.

    Raises:
        CheckpointError: it is none; the message lists the differences.
    """
    whole = isinstance(state, Mapping) and set(PARTS) <= set(state)
    if not whole or state["format"] != FORMAT:
        found = state.get("format") if isinstance(state, Mapping) else type(state).__name__
        raise CheckpointError(
            f"checkpoint: expected the state of an engine in format {FORMAT}, found {found!r}; "
            "make one with Engine.save, by the version of the library that reads it"
        )
    if not other_versions:
        check_same(
            state["versions"],
            described_versions(),
            "version (other_versions=True, or --other-versions, goes on all the same)",
        )
    now = described_program(engine._program, engine.schedule, engine._streams)
    check_same(state["program"], now, "program")


def _load(engine: Engine, state: State, kept: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Put a state back; streams in `kept` where that says, since they have no state."""
    mover = engine._mover
    for name, problem in engine._program.problems.items():
        load_problem_state(problem, state["problems"][name])
    unpacker = unpacker_of(engine._program, engine._streams)
    for name, stream in engine._streams.items():
        if name in kept:
            stream.put(kept[name])
        else:
            stream.load_state_dict(state["streams"][name])
    mover.recall(unpacker.memory(copied(state["memory"])))
    mover.restarts.fresh = copied(state["fresh"])
    _load_guard(engine._guard, copied(state["guard"]), unpacker)
    engine._health.load_state_dict(state["health"])
    engine.tick, engine._counts = state["tick"], dict(state["counts"])
    # Last, since what was done until here may have drawn from it.
    RandomState.from_plain(state["random"]).restore()


def _guard_state(guard: TickGuard) -> dict[str, Any]:
    """Where a tick that is taken back goes back to."""
    kept: dict[str, Any] | None = None
    if guard.last is not None:
        memory = packed_memory(guard.last.memory)
        kept = {"problems": dict(guard.last.problems), "memory": memory}
    return {"in_row": guard.in_row, "taken": guard.taken, "last": kept}


def _load_guard(guard: TickGuard, state: State, unpacker: Unpacker) -> None:
    last = state["last"]
    if last is not None:
        last = Snapshot(last["problems"], unpacker.memory(last["memory"]))
    guard.in_row, guard.taken, guard.last = state["in_row"], state["taken"], last


def _check_exact(engine: Engine, state: State) -> None:
    now = engine_state(engine)
    inexact = [name for name, stream in engine._streams.items() if stream.inexact]
    parts = set(PARTS) - {"format", "versions", "program", "streams"}
    pairs = [(part, state[part], now[part]) for part in sorted(parts)]
    pairs += [
        (f"streams.{name}", state["streams"][name], now["streams"][name])
        for name in engine._streams
        if name not in inexact
    ]
    for path, old, new in pairs:
        for where, _, _ in differences(old, new, path):
            raise CheckpointError(
                f"checkpoint: {where} does not come back as it was saved; an optimizer, scheduler "
                "or module whose load_state_dict() does not restore what its state_dict() says "
                "cannot be resumed exactly"
            )
