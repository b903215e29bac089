"""When each problem moves: pure arithmetic on names and counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from mlo.graph import DependencyGraph


@dataclasses.dataclass(frozen=True)
class Timing:
    """How often a problem moves; see `Problem` for the meaning of each."""

    every: int = 1
    repeat: int = 1
    warmup: int = 0
    accumulate: int = 1

    @property
    def draws(self) -> int:
        """Batches of each stream that a move takes."""
        return self.repeat * self.accumulate


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one tick does.

    Attributes:
        tick: the tick, counted from 0.
        order: the problems that move, in the order of their real moves.
        draws: stream -> batches drawn in this tick; a problem that needs n uses the last n.
        counts: problem -> ticks towards its next move, after this tick.
    """

    tick: int
    order: tuple[str, ...]
    draws: Mapping[str, int]
    counts: Mapping[str, int]


class Schedule:
    """Decides, tick by tick, who moves.

    A problem counts the ticks (after its warm-up) in which a problem below it that it reads has
    moved, or every tick where it reads none, and moves at every `every`-th of them.

    Without `lookahead` the due problems move from the lowest up. With it, problems that others
    respond to move first, the highest first, each against trial moves of those below it; then the
    rest move for real, the lowest first (the order of DARTS and of Learning From Mistakes). A due
    problem that reads nothing which is still to move would make the same move on trial and for
    real, so it moves at the very beginning, once.
    """

    def __init__(
        self, graph: DependencyGraph, timings: Mapping[str, Timing], *, lookahead: bool = False
    ) -> None:
        self.graph = graph
        self.timings = dict(timings)
        self.lookahead = lookahead
        self._steady: list[str] = []
        for name, timing in self.timings.items():
            if timing.every == 1 and timing.warmup == 0 and self._triggered(name, self._steady):
                self._steady.append(name)

    def start(self) -> dict[str, int]:
        """The counts before the first tick."""
        return dict.fromkeys(self.graph.names, 0)

    def plan(self, tick: int, counts: Mapping[str, int]) -> Plan:
        """What happens in `tick`, given the counts after the tick before."""
        after = dict(counts)
        due: list[str] = []
        for name in self.graph.names:
            timing = self.timings[name]
            if tick < timing.warmup or not self._triggered(name, due):
                continue
            after[name] += 1
            if after[name] == timing.every:
                after[name] = 0
                due.append(name)
        return Plan(tick, self._ordered(due), self.draws(due), after)

    def always_due(self, name: str) -> bool:
        """Whether `name` moves in every tick."""
        return name in self._steady

    def draws(self, names: list[str] | tuple[str, ...]) -> dict[str, int]:
        """Stream -> batches that a tick draws when the problems called `names` move in it."""
        draws: dict[str, int] = {}
        for name in names:
            for stream in self.graph.nodes[name].streams:
                draws[stream] = max(draws.get(stream, 0), self.timings[name].draws)
        return draws

    def micro_batches(self, stream: str) -> int:
        """The most micro-batches that one loss takes of `stream`."""
        readers = [n for n, node in self.graph.nodes.items() if stream in node.streams]
        return max((self.timings[n].accumulate for n in readers), default=1)

    def _triggered(self, name: str, moved: list[str]) -> bool:
        level = self.graph.level
        below = [r for r in self.graph.nodes[name].reads if level[r] < level[name]]
        return not below or any(r in moved for r in below)

    def _ordered(self, due: list[str]) -> tuple[str, ...]:
        if not self.lookahead:
            return tuple(due)
        settled = self._settled(due)
        upper = [name for name in due if self.graph.scope(name)]
        rest = [name for name in due if name not in upper and name not in settled]
        return (*settled, *reversed(upper), *rest)

    def _settled(self, due: list[str]) -> list[str]:
        """Due problems whose move depends on no other that is still to be made."""
        settled: list[str] = []
        for level in sorted({self.graph.level[name] for name in due}):
            # Those of one level move at once, so they settle together or not at all.
            group = [name for name in due if self.graph.level[name] == level]
            others = {r for name in group for r in self.graph.nodes[name].reads if r in due}
            alone = not any(self.graph.scope(name) for name in group)
            if alone and others <= {*settled, *group}:
                settled += group
        return settled

    def __str__(self) -> str:
        """One line a problem."""
        lines = [f"order: {'lookahead' if self.lookahead else 'lowest problem first'}"]
        for name, t in self.timings.items():
            words = ["every tick" if t.every == 1 else f"every {t.every} ticks"]
            words += [f"{t.repeat} updates" if t.repeat > 1 else "1 update"]
            words += [f"{t.accumulate} micro-batches each"] if t.accumulate > 1 else []
            words += [f"after {t.warmup} ticks"] if t.warmup else []
            lines.append(f"{name}: {', '.join(words)}")
        return "\n".join(lines)
