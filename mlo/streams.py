"""Data streams: one batch at a time, one epoch after another, on the engine's device."""

from __future__ import annotations

import collections
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_map

from mlo.batch_trees import packed, unpacked
from mlo.errors import CheckpointError, ResumeWarning, StreamError
from mlo.loader_sources import source_of
from mlo.plain import differences
from mlo.randomness import preserved
from mlo.stream_sources import Source


class Stream:
    """An iterable that starts again when it is exhausted, with the batches drawn last at hand.

    Attributes:
        held: the batches of the present tick, the last one being the tick's batch.
        used: batches that ticks have used so far.
        origin: how the source goes on where it was.
    """

    def __init__(self, name: str, source: Iterable[Any], device: torch.device | None) -> None:
        one_batch = isinstance(source, str | bytes | torch.Tensor | Mapping)
        if one_batch or not isinstance(source, Iterable):
            raise StreamError(
                f"data stream '{name}' must be an iterable of batches, such as a DataLoader or a "
                f"list, got {type(source).__name__}; if that is the one batch there is, put it in "
                "a list"
            )
        self.name = name
        self.source = source
        self.origin = source_of(name, source)
        self.device = device
        self.held: list[Any] = []
        self.used = 0
        self._ahead: list[Any] = []
        self._iterator: Iterator[Any] | None = None
        self._ended: list[int] = []
        self._drawn = 0
        self._in_epoch = 0

    @property
    def inexact(self) -> str | None:
        """Why it cannot be resumed exactly, and what to do; `None` where it can."""
        return self.origin.inexact

    @property
    def length(self) -> int | None:
        """Batches per epoch, where the source knows."""
        try:
            return len(self.source)  # type: ignore[arg-type]
        except TypeError:
            return None

    @property
    def epochs(self) -> int:
        """Epochs that ticks have completed."""
        if self.length is not None:
            return self.used // self.length
        return sum(end <= self.used for end in self._ended)

    def present(self, draws: int = 1) -> Any:
        """The tick's batch; before the first tick the last of `draws` that it will use first."""
        if not self.held:
            self.held = self._ahead = [self._draw() for _ in range(draws)]
        return self.held[-1]

    def advance(self, draws: int) -> None:
        """Draw the batches of a new tick; those that were only looked at so far count as drawn."""
        drawn = self._ahead
        self.held = [*drawn[:draws], *(self._draw() for _ in range(draws - len(drawn)))]
        self._ahead = drawn[draws:]
        self.used += draws

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, as plain values (see `mlo.plain`); tensors are not copied.

        The first batch is drawn if none is.

        Raises:
            CheckpointError: a batch, or the source's own state, holds what no file can hold safely.
        """
        self.present()
        return {
            "kind": self.origin.kind,
            "held": [packed(batch, self.name) for batch in self.held],
            "ahead": [packed(batch, self.name) for batch in self._ahead],
            "used": self.used,
            "drawn": self._drawn,
            "ended": [*self._ended],
            "in_epoch": self._in_epoch,
            "position": None if self.inexact else self.origin.position(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where `state_dict` was called, whatever was drawn since this was built.

        The global random states are left as they are found; who saved them puts them back
        afterwards. A DataLoader without a state of its own loads its epoch again up to the place.

        Args:
            state: what `state_dict` returned.

        Raises:
            CheckpointError: the source is of another kind, or its data are not what they were.

        Warns:
            ResumeWarning: the source cannot go on exactly; it begins a new epoch.
        """
        with preserved(self._devices()):
            like = self.present()
            held = [unpacked(batch, like, self.name) for batch in state["held"]]
            ahead = [unpacked(batch, like, self.name) for batch in state["ahead"]]
            self._iterator = None  # before the next one begins, for its workers end with it
            self._iterator = self._resumed(state)
        self.held, self._ahead = held, ahead
        self.used, self._drawn, self._ended = state["used"], state["drawn"], [*state["ended"]]
        self._in_epoch = 0 if self._iterator is None else state["in_epoch"]

    def kept(self) -> dict[str, Any]:
        """Where it is, for this process alone: its iterator is not moved by that."""
        names = ("held", "used", "_ahead", "_iterator", "_ended", "_drawn", "_in_epoch")
        lists = {name: getattr(self, name) for name in names}
        return {name: [*v] if isinstance(v, list) else v for name, v in lists.items()}

    def put(self, kept: Mapping[str, Any]) -> None:
        """Go on from there."""
        for name, value in kept.items():
            setattr(self, name, value)

    def _resumed(self, state: Mapping[str, Any]) -> Iterator[Any] | None:
        """The iterator at its place; `None` where a new epoch is to begin."""
        if self.inexact or state["position"] is None:
            reason = self.inexact or "the checkpoint has no position of it"
            warnings.warn(
                f"{self.titled} begins a new epoch, which an undisturbed run would not: {reason}",
                ResumeWarning,
                stacklevel=3,
            )
            return None
        if state["kind"] != self.origin.kind:
            raise CheckpointError(
                f"{self.titled}: expected a source of the kind '{state['kind']}', as when the "
                f"checkpoint was written, found '{self.origin.kind}'; build the engine with the "
                "data of the run"
            )
        last = [*state["held"], *state["ahead"]][-1]

        def agrees(batch: Any) -> bool:
            return not any(differences(packed(self._placed(batch), self.name), last))

        return self.origin.resume(state["position"], state["in_epoch"], agrees)

    @property
    def titled(self) -> str:
        """Its name and the type of its source, for messages."""
        return f"data stream '{self.name}' ({type(self.source).__name__})"

    def _devices(self) -> list[torch.device]:
        """The devices with a random state of their own."""
        return [d for d in [self.device] if d is not None and d.type not in ("cpu", "meta")]

    def _placed(self, batch: Any) -> Any:
        return batch if self.device is None else to_device(batch, self.device)

    def _begin(self) -> Iterator[Any]:
        self._in_epoch = 0
        return self.origin.begin()

    def _draw(self) -> Any:
        if self._iterator is None:
            self._iterator = self._begin()
        for _ in range(2):
            try:
                batch = next(self._iterator)
            except StopIteration:
                self._ended.append(self._drawn)
                self._iterator = self._begin()
            else:
                self._drawn += 1
                self._in_epoch += 1
                return self._placed(batch)
        again = "it is empty" if self._drawn == 0 else "it cannot start again, being an iterator"
        raise StreamError(
            f"data stream '{self.name}' has no batch to give: {again}; pass a DataLoader, a list "
            "or another iterable that begins anew each time it is iterated over"
        )


def make_streams(
    data: Mapping[str, Iterable[Any]], device: torch.device | None
) -> dict[str, Stream]:
    """One `Stream` per entry of the engine's `data=`.

    Warns:
        ResumeWarning: a stream cannot be resumed exactly; the message says why.
    """
    streams = {name: Stream(name, source, device) for name, source in data.items()}
    _find_shared([stream.origin for stream in streams.values()])
    for stream in streams.values():
        if stream.inexact is not None:
            warnings.warn(
                f"{stream.titled} cannot be resumed exactly: {stream.inexact}",
                ResumeWarning,
                stacklevel=3,
            )
    return streams


def _find_shared(origins: list[Source]) -> None:
    """Streams that draw from one generator cannot each put it back."""
    users = collections.defaultdict(list)
    for origin in origins:
        for thing in origin.owned:
            users[id(thing)].append(origin)
    for origin in origins:
        for thing in origin.owned:
            others = [f"'{o.stream}'" for o in users[id(thing)] if o is not origin]
            if others and origin.inexact is None:
                origin.inexact = (
                    f"it shares a {type(thing).__name__} with {', '.join(others)}; give each "
                    "stream its own"
                )


def to_device(batch: Any, device: torch.device) -> Any:
    """The same pytree with every leaf that knows `to` moved."""

    def move(leaf: Any) -> Any:
        return leaf.to(device) if hasattr(leaf, "to") else leaf

    return tree_map(move, batch)
