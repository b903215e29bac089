"""What is kept of a move that met a NaN or an infinity, and making that move again."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import random
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mlo.batch_trees import packed, unpacked
from mlo.checkpoint_file import read_checkpoint, write_checkpoint
from mlo.errors import CheckpointError
from mlo.move_state import packed_memory, unpacker_of
from mlo.problem_state import ProblemState
from mlo.randomness import RandomState
from mlo.snapshot import Memory, Snapshot
from mlo.watch import Place

if TYPE_CHECKING:
    from mlo.engine import Engine


@dataclasses.dataclass(frozen=True)
class Incident:
    """A move that met something which is not finite, as it was before anything of it was applied.

    Attributes:
        tick: in which tick.
        problem: where it appeared first; on trial that may be another one than the one that moved.
        what: the same in a sentence.
        place: which update of which problem was being made.
        batches: stream -> the batches that the tick had drawn.
        random: the random state before the update.
        state: problem -> its state before the update (see `mlo.problem_state`).
        memory: what else the move depends on: recorded moves, states of methods, counts.
    """

    tick: int
    problem: str
    what: str
    place: Place
    batches: Mapping[str, Sequence[Any]]
    random: RandomState
    state: Mapping[str, ProblemState]
    memory: Memory

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the incident to a file, from which `replay` reads it.

        Raises:
            CheckpointError: it cannot be written, or a batch holds what no file can.
        """
        batches = {
            stream: [packed(batch, stream) for batch in held]
            for stream, held in self.batches.items()
        }
        plain = {
            **vars(self),
            "place": dataclasses.asdict(self.place),
            "batches": batches,
            "random": self.random.plain(),
            "memory": packed_memory(self.memory),
        }
        write_checkpoint(path, {"incident": plain})

    @classmethod
    def load(cls, path: str | os.PathLike[str], engine: Engine) -> Incident:
        """Read the incident of an engine that was built by the same code.

        Raises:
            CheckpointError: it is absent, damaged or none.
        """
        plain = read_checkpoint(path).get("incident")
        if plain is None:
            raise CheckpointError(
                f"checkpoint: '{path}' holds no incident; give a file that Incident.save or a run "
                "has written when something was not finite"
            )
        unpacker = unpacker_of(engine._program, engine._streams)
        batches = {
            stream: tuple(unpacked(batch, unpacker.likes[stream], stream) for batch in held)
            for stream, held in plain["batches"].items()
        }
        given = {
            "place": Place(**plain["place"]),
            "batches": batches,
            "random": RandomState.from_plain(plain["random"]),
            "memory": unpacker.memory(plain["memory"]),
        }
        return cls(**{**plain, **given})


@dataclasses.dataclass(frozen=True)
class Replayed:
    """A move made again.

    Attributes:
        loss: of the problem that moved.
        gradient: variable -> its part of the total gradient; `None` where nothing depends.
        parameters: variable -> where the step leads.
    """

    loss: Tensor
    gradient: Mapping[str, Tensor | None]
    parameters: Mapping[str, Tensor]


def replay(engine: Engine, incident: Incident | str | os.PathLike[str]) -> Replayed:
    """Put an engine where an incident happened, and evaluate its move there once more.

    Batches, random numbers, recorded moves and moves on trial are the same, so that a breakpoint in
    a loss, or ``torch.autograd.set_detect_anomaly(True)`` around the call, shows where the value
    comes from. The optimizer steps a copy: afterwards the problems stand where they stood before
    the move, and the call can be repeated.

    Args:
        engine: the one that it happened to, or one built anew by the same code.
        incident: from `NonfiniteError.incident`, or a file with one.

    Raises:
        CheckpointError: the file holds none.
    """
    if not isinstance(incident, Incident):
        incident = Incident.load(incident, engine)
    mover, place = engine._mover, incident.place
    Snapshot(incident.state, incident.memory).restore(mover)
    for name, batches in incident.batches.items():
        engine._streams[name].held = list(batches)
    engine.tick = incident.tick
    incident.random.restore()
    try:
        gradient, reached = mover.remake(place)
    finally:
        mover.end_tick()
    names = list(engine._program.variables[place.name])
    return Replayed(
        gradient.evaluation.value,
        dict(zip(names, gradient.values, strict=True)),
        dict(zip(names, reached, strict=True)),
    )


class Mark:
    """The random state before an update, noted so that noting it costs next to nothing.

    Asking NumPy for its state takes longer than everything else that is done about an update. Its
    generator's bytes are noted instead, and the state is made of these where it is asked for. They
    hold all but a normal number that its old generator may keep back, so of problems that have
    drawn from NumPy before, the whole state is kept.

    Args:
        devices: accelerators whose generators count.
        whole: keep the whole state.
    """

    def __init__(self, devices: Sequence[torch.device], *, whole: bool) -> None:
        self._devices = devices
        self._state = RandomState.capture(devices) if whole else None
        self._bytes = _numpy_bytes()
        if self._state is None and self._bytes is None:  # another generator than the usual one
            self._state = RandomState.capture(devices)
        if self._state is None:
            self._python = random.getstate()
            self._host = torch.get_rng_state()
            self._there = tuple((d, torch.get_device_module(d).get_rng_state(d)) for d in devices)

    @property
    def numpy_drew(self) -> bool:
        """Whether numbers were drawn from NumPy's generator since."""
        return self._bytes != _numpy_bytes()

    def state(self) -> RandomState:
        """The state as it was."""
        if self._state is not None:
            return self._state
        numpy: Any = np.random.get_state()
        if self.numpy_drew and self._bytes is not None:
            key = np.frombuffer(self._bytes[:-4], dtype=np.uint32).copy()
            numpy = ("MT19937", key, int.from_bytes(self._bytes[-4:], sys.byteorder), 0, 0.0)
        return RandomState(self._python, numpy, self._host, self._there)


_MT19937 = 624 * 4 + 4
"""Bytes of its state: 624 words and the place among them."""


def _numpy_bytes() -> bytes | None:
    """The state of NumPy's global generator, where that is the usual one."""
    generator = np.random.get_bit_generator()  # type: ignore[attr-defined]  # it is public
    if type(generator) is not np.random.MT19937:
        return None
    return ctypes.string_at(generator.ctypes.state_address, _MT19937)
