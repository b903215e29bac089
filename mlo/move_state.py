"""What a mover remembers, recorded moves above all, as plain values and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mlo.batch_trees import packed, unpacked
from mlo.errors import CheckpointError
from mlo.moves import Begun, Move
from mlo.optimizer_steps import STEP_RULES, ParameterStep
from mlo.program import Program
from mlo.randomness import RandomState
from mlo.setting import Setting
from mlo.snapshot import Memory
from mlo.streams import Stream
from mlo.update import Step

Plain = dict[str, Any]


def packed_memory(memory: Memory) -> Plain:
    """What a mover remembers, as plain values that share its tensors."""
    return {**vars(memory), "moves": {n: packed_move(move) for n, move in memory.moves.items()}}


def packed_move(move: Move) -> Plain:
    """A move without its graph, as plain values that share its tensors."""
    return {
        "setting": _packed_setting(move.setting),
        "learning_rate": move.learning_rate,
        "before": move.before,
        "reads": dict(move.reads),
        "below": {name: packed_move(other) for name, other in move.below.items()},
        "step": None if move.step is None else _packed_step(move.step),
        "context_gradient": move.context_gradient,
        "begun": None
        if move.begun is None
        else {"setting": _packed_setting(move.begun.setting), "own": move.begun.own},
        "past": [packed_move(other) for other in move.past],
        "trial": move.trial,
    }


class Unpacker:
    """Makes moves of plain values.

    Args:
        program: whose moves they are.
        likes: stream -> a batch of it, the template for what is no plain container.
    """

    def __init__(self, program: Program, likes: Mapping[str, Any]) -> None:
        self.program = program
        self.likes = likes

    def memory(self, plain: Plain) -> Memory:
        """What a mover is to remember."""
        moves = {name: self.move(name, part) for name, part in plain["moves"].items()}
        return Memory(**{**plain, "moves": moves})

    def move(self, name: str, plain: Plain) -> Move:
        """A move of the problem called `name`."""
        begun = plain["begun"]
        return Move(
            self.setting(plain["setting"]),
            plain["learning_rate"],
            before=plain["before"],
            reads=plain["reads"],
            below={other: self.move(other, part) for other, part in plain["below"].items()},
            step=None if plain["step"] is None else self.step(name, plain["step"]),
            context_gradient=plain["context_gradient"],
            begun=None if begun is None else Begun(self.setting(begun["setting"]), begun["own"]),
            past=tuple(self.move(name, part) for part in plain["past"]),
            trial=plain["trial"],
        )

    def setting(self, plain: Plain) -> Setting:
        """A setting; its batches are built after those that the streams give now."""
        batches = tuple(
            {stream: unpacked(part, self.likes[stream], stream) for stream, part in batch.items()}
            for batch in plain["batches"]
        )
        random = None if plain["random"] is None else RandomState.from_plain(plain["random"])
        return Setting(plain["tick"], batches, random, plain["buffers"], plain["modes"])

    def step(self, name: str, plain: Plain) -> Step:
        """A step of the problem's own optimizer."""
        rule = STEP_RULES.get(type(self.program.problems[name].optimizer))
        if rule is None and any(update is not None for update in plain["updates"]):
            raise CheckpointError(
                f"checkpoint: problem '{name}' has recorded steps, but its optimizer makes none "
                "that can be made again; build the engine with the optimizer that it had",
                problem=name,
            )
        updates = tuple(
            None if update is None else ParameterStep(rule=rule, **update)  # type: ignore[arg-type]
            for update in plain["updates"]
        )
        projection = self.program.projection(name) if plain["projected"] else None
        parts = {key: plain[key] for key in ("derivative", "carry", "unprojected")}
        return Step(updates=updates, projection=projection, **parts)


def unpacker_of(program: Program, streams: Mapping[str, Stream]) -> Unpacker:
    """An unpacker that builds batches after those that the streams give."""
    return Unpacker(program, {name: stream.present() for name, stream in streams.items()})


def _packed_setting(setting: Setting) -> Plain:
    return {
        "tick": setting.tick,
        "batches": [
            {stream: packed(part, stream) for stream, part in batch.items()}
            for batch in setting.batches
        ],
        "random": None if setting.random is None else setting.random.plain(),
        "buffers": None if setting.buffers is None else dict(setting.buffers),
        "modes": setting.modes,
    }


def _packed_step(step: Step) -> Plain:
    return {
        "derivative": step.derivative,
        "carry": step.carry,
        "updates": [None if update is None else _packed_update(update) for update in step.updates],
        "projected": step.projection is not None,
        "unprojected": step.unprojected,
    }


def _packed_update(update: ParameterStep) -> Plain:
    fields = {f.name: getattr(update, f.name) for f in dataclasses.fields(update)}
    del fields["rule"]  # a function; that of the problem's optimizer
    return {**fields, "group": dict(update.group), "state": dict(update.state)}
