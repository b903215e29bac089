"""Where problems stand within a tick, and where they stood: for records, and for their peers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mlo.program import Program
from mlo.types import Tensors


class Standpoints:
    """Live values, copies of them for records, and what moves at once takes as still there.

    Args:
        program: the compiled declaration.

    Attributes:
        moved: problems that have moved in this tick.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.moved: set[str] = set()
        self._snapshots: dict[str, Tensors] = {}
        self._stood: dict[str, Tensors] = {}
        self._stood_buffers: dict[tuple[int, str], Tensor | None] = {}

    def values(self, name: str, *, copied: bool, recorded: bool) -> dict[str, Tensors]:
        """Where everybody stands for `name`; those on its level, as when the tick began.

        Args:
            name: who moves, or is looked at.
            copied: hand out copies, so that not even a loss that writes may reach live tensors.
            recorded: the values are to stay with a record: copies of those that matter to it.
        """
        graph = self.program.graph
        values = {n: self.program.present(n) for n in graph.names}
        if copied:
            values = {n: tuple(t.clone() for t in own) for n, own in values.items()}
        if recorded:
            for read in {name, *graph.surroundings(name)}:
                values[read] = self._snapshot(read)
        values.update({n: self._stood[n] for n in graph.peers(name) if n in self._stood})
        return values

    def buffers(self, name: str) -> Mapping[tuple[int, str], Tensor | None]:
        """(id of a module, name) -> what counts for `name` instead of the live buffer."""
        peers = self.program.graph.peers(name)
        return self._stood_buffers if any(n in self._stood for n in peers) else {}

    def leave(self, name: str) -> None:
        """Keep where `name` stands, and its buffers, for those that move at once with it."""
        self._stood[name] = tuple(t.clone() for t in self.program.present(name))
        for other in (name, *self.program.problems[name].updates_buffers):
            for module in self.program.problems[other].module.modules():
                for key, buffer in module._buffers.items():
                    copied = None if buffer is None else buffer.clone()
                    self._stood_buffers.setdefault((id(module), key), copied)

    def arrive(self, name: str) -> None:
        """`name` has made an update."""
        self._snapshots.pop(name, None)
        self.moved.add(name)

    def kept(self) -> dict[str, Any]:
        """What is remembered in this tick, with modules by their problem and path."""
        places = self._places() if self._stood_buffers else {}
        return {
            "moved": sorted(self.moved),
            "stood": dict(self._stood),
            "buffers": [(*places[m], key, b) for (m, key), b in self._stood_buffers.items()],
        }

    def put(self, kept: Mapping[str, Any]) -> None:
        """Remember that instead."""
        self.end_tick()
        modules = {}
        if kept["buffers"]:
            modules = {place: module for module, place in self._places().items()}
        self.moved.update(kept["moved"])
        self._stood.update(kept["stood"])
        for problem, path, key, buffer in kept["buffers"]:
            self._stood_buffers[modules[problem, path], key] = buffer

    def end_tick(self) -> None:
        """Forget; everybody stands where they are."""
        for memory in (self._snapshots, self._stood, self._stood_buffers, self.moved):
            memory.clear()

    def _places(self) -> dict[int, tuple[str, str]]:
        """Id of a module -> the first problem and path that lead to it."""
        found: dict[int, tuple[str, str]] = {}
        for name, problem in self.program.problems.items():
            for path, module in problem.module.named_modules():
                found.setdefault(id(module), (name, path))
        return found

    def _snapshot(self, name: str) -> Tensors:
        """A copy of where a problem stands, made once and shared until it moves."""
        if name not in self._snapshots:
            self._snapshots[name] = tuple(t.clone() for t in self.program.present(name))
        return self._snapshots[name]
