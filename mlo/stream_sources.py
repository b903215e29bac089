"""Where the batches of a stream come from, and how each kind of source goes on where it was."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from mlo.errors import CheckpointError
from mlo.generators import generators_in, restore, state_of
from mlo.plain import check_plain, copied, differences
from mlo.randomness import RandomState

Agrees = Callable[[Any], bool]
"""Whether a batch is bit for bit the one that was drawn last before the checkpoint."""

IN_ORDER = {kind.__iter__ for kind in (list, tuple, range, collections.deque, np.ndarray, Sequence)}
"""Ways to iterate that go by the index."""


def goes_by_index(iterable: Iterable[Any]) -> bool:
    """Whether an iterator gives what is at 0, 1, 2, ..."""
    return getattr(type(iterable), "__iter__", None) in IN_ORDER


class Source:
    """An iterable that keeps no position: a generator, or an iterable of the user's own.

    Attributes:
        kind: names the way in which a source goes on, in a checkpoint.
        inexact: why it cannot go on exactly where it was, and what to do; `None` where it can.
        owned: what must serve no other stream, since this one puts its state back.
    """

    kind = "other"

    def __init__(self, stream: str, iterable: Iterable[Any]) -> None:
        self.stream = stream
        self.iterable = iterable
        self.inexact = self.find_fault()
        self.owned: list[object] = []

    def find_fault(self) -> str | None:
        """Why it cannot go on exactly where it was."""
        if isinstance(self.iterable, Iterator):
            return (
                "an iterator is used up as it goes; pass a list, a DataLoader over a map-style "
                "data set, or an iterable with state_dict() and load_state_dict()"
            )
        return (
            "it keeps no position; give it state_dict() and load_state_dict(), or pass a list or "
            "a DataLoader over a map-style data set"
        )

    def begin(self) -> Iterator[Any]:
        """A new epoch."""
        return iter(self.iterable)

    def position(self) -> dict[str, Any]:
        """What `resume` needs besides the number of batches drawn, as plain values."""
        raise NotImplementedError

    def resume(self, position: dict[str, Any], drawn: int, agrees: Agrees) -> Iterator[Any]:
        """The iterator of an epoch of which `drawn` batches, at least one, are drawn.

        Raises:
            CheckpointError: the data are not those of the checkpoint.
        """
        raise NotImplementedError

    def failure(self, found: str, hint: str) -> CheckpointError:
        """An error that names the stream."""
        kind = type(self.iterable).__name__
        return CheckpointError(f"data stream '{self.stream}' ({kind}): {found}; {hint}")

    def check(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        """Make sure that the source is built as it was when the checkpoint was written."""
        for what, value in now.items():
            if before.get(what) != value:
                raise self.failure(
                    f"{what}: expected {before.get(what)}, as when the checkpoint was written, "
                    f"found {value}",
                    "build the engine with the data of the run",
                )


class InMemory(Source):
    """A list, a tuple or another sequence: the position is the index.

    On resuming the batch drawn last is fetched once more, and must be what it was.
    """

    kind = "sequence"
    iterable: Sequence[Any]

    def __init__(self, stream: str, iterable: Iterable[Any]) -> None:
        super().__init__(stream, iterable)
        # Those of a sequence that makes its batches; plain lists hold none.
        built = isinstance(iterable, list | tuple | range)
        self.generators = [] if built else generators_in(iterable)
        self.owned = [*self.generators]

    def find_fault(self) -> None:
        """An index and the states of its generators say everything."""

    def position(self) -> dict[str, Any]:
        """The length, to be compared, and the states of its generators."""
        states = [state_of(g) for g in self.generators]
        return {"batches": len(self.iterable), "generators": states}

    def resume(self, position: dict[str, Any], drawn: int, agrees: Agrees) -> Iterator[Any]:
        """Begin at the index `drawn`."""
        self.check(position, {"batches": len(self.iterable)})
        if not self.generators:
            batch, random = drawing(lambda: self.iterable[drawn - 1])
            if not random and not agrees(batch):
                raise self.failure(
                    f"batch {drawn - 1} is not what it was when the checkpoint was written",
                    "the data changed; resume with the data of the run",
                )
        for generator, state in zip(self.generators, position["generators"], strict=True):
            restore(generator, state)
        return self._from(drawn)

    def _from(self, index: int) -> Iterator[Any]:
        while True:
            try:
                batch = self.iterable[index]
            except IndexError:
                return
            yield batch
            index += 1


class Stateful(Source):
    """A source with `state_dict()` and `load_state_dict()`: it is told to go on by itself.

    After `load_state_dict` its next iterator must give what comes after the batches drawn before
    `state_dict` was called, and the one after that a new epoch.
    """

    kind = "stateful"

    def __init__(self, stream: str, iterable: Iterable[Any]) -> None:
        super().__init__(stream, iterable)
        self.owned = [iterable]

    def find_fault(self) -> str | None:
        """It says where it is."""
        return None

    def position(self) -> dict[str, Any]:
        """Its own state."""
        state = self.iterable.state_dict()  # type: ignore[attr-defined]
        check_plain(state, f"the state of data stream '{self.stream}'")
        return {"own": copied(state)}

    def resume(self, position: dict[str, Any], drawn: int, agrees: Agrees) -> Iterator[Any]:
        """Load its state."""
        self.iterable.load_state_dict(copied(position["own"]))  # type: ignore[attr-defined]
        return iter(self.iterable)


def drawing(draw: Callable[[], Any]) -> tuple[Any, bool]:
    """What `draw` returns, and whether it used the global random states of the host."""
    before = RandomState.capture().plain()
    found = draw()
    return found, any(differences(before, RandomState.capture().plain()))
