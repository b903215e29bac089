"""How DataLoaders go on where they were: by drawing again, or by a state of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset
from torch.utils.data.distributed import DistributedSampler

from mlo.loader_parts import SHUFFLING, LoaderParts, has_state, is_torchdatas
from mlo.stream_sources import Agrees, InMemory, Source, Stateful, drawing, goes_by_index

ADVICE = "pass a torchdata.stateful_dataloader.StatefulDataLoader"


def source_of(stream: str, iterable: Iterable[Any]) -> Source:
    """The way in which an iterable goes on where it was."""
    if isinstance(iterable, DataLoader):
        if has_state(iterable):
            return StatefulLoader(stream, iterable)
        if type(iterable).__iter__ is DataLoader.__iter__:
            return Replayed(stream, iterable)
    if has_state(iterable):
        return Stateful(stream, iterable)
    return InMemory(stream, iterable) if goes_by_index(iterable) else Source(stream, iterable)


class Replayed(Source):
    """A DataLoader over a map-style data set: its epoch is begun again and drawn up to the place.

    Just before an epoch begins the random states of the host and the states of all generators and
    samplers of the loader are noted. They are put back, the loader begins its epoch again and
    gives the batches drawn so far, which are discarded. So the order, the seeds of workers and the
    random states inside workers are what they were. Cost: up to one epoch is loaded again.

    Without workers a data set may draw on the global random states; those are the caller's to put
    back afterwards. Generators that the data set or the loader's functions hold are put back with
    the rest (see `mlo.generators`); draws from others are found out by the last batch, as a rule.
    """

    kind = "loader"
    iterable: DataLoader[Any]

    def __init__(self, stream: str, iterable: DataLoader[Any]) -> None:
        self.parts = LoaderParts(iterable)
        super().__init__(stream, iterable)
        self.owned = self.parts.owned

    def find_fault(self) -> str | None:
        """Workers that outlive an epoch, and samplers and data sets that keep no position."""
        loader = self.iterable
        if isinstance(loader.dataset, IterableDataset):
            return f"it loads an IterableDataset, which keeps no position; {ADVICE}"
        if loader.num_workers > 0 and loader.persistent_workers:
            return (
                "with persistent_workers=True the random states of the workers run on from epoch "
                "to epoch, where none can read them; leave it out"
            )
        foreign = next((s for s in self.parts.samplers if is_torchdatas(s)), None)
        if foreign is not None:
            return f"its {type(foreign).__name__} is made for another loader; {ADVICE}"
        return order_fault(loader, self.parts)

    def begin(self) -> Iterator[Any]:
        """A new epoch; what it starts from is noted."""
        self.parts.begin()
        return iter(self.iterable)

    def position(self) -> dict[str, Any]:
        """The states before this epoch and now."""
        return {"layout": layout(self.iterable, self.parts), **self.parts.plain()}

    def resume(self, position: dict[str, Any], drawn: int, agrees: Agrees) -> Iterator[Any]:
        """Draw the epoch again."""
        self.check(position["layout"], layout(self.iterable, self.parts))
        self.parts.begin_again(position)
        iterator = self._replay(drawn, agrees)
        if "generators" in self.parts.differing(position):
            raise self.failure(
                "a generator of it, after as many batches, is not in the state that it had when "
                "the checkpoint was written: something else draws from it too",
                "give the loader a torch.Generator that serves nothing else",
            )
        self.parts.finish(position)
        if self.parts.differing(position):
            raise self.failure(
                "a sampler is not in the state that it was told to load",
                "its state_dict() must return what load_state_dict() was given",
            )
        return iterator

    def _replay(self, drawn: int, agrees: Agrees) -> Iterator[Any]:
        iterator = iter(self.iterable)
        given = sum(1 for _ in zip(range(drawn - 1), iterator, strict=False))
        try:
            batch, random = drawing(lambda: next(iterator))
        except StopIteration:
            raise self.failure(
                f"its epoch ends after {given} of the {drawn} batches that were drawn before the "
                "checkpoint was written",
                "the data changed; resume with the data of the run",
            ) from None
        # What workers draw comes from their seeds; what this process draws comes from anywhere.
        if (self.iterable.num_workers > 0 or not random) and not agrees(batch):
            raise self.failure(
                f"batch {drawn - 1} of its epoch, drawn again, is not what it was",
                "resume with the data of the run; if these are, then the data set is no function "
                "of the index and of the seeds that the loader gives, and must become one",
            )
        return iterator


class StatefulLoader(Stateful):
    """A StatefulDataLoader of torchdata: it goes on by its own state, without loading again.

    That state is completed by what it leaves out: generators of the loader, the epoch of a
    distributed sampler, and the random states from which torch's samplers draw an order.
    Random states inside workers are in nobody's hands: a data set that draws at random there
    goes on with other draws to the end of the epoch. Use a DataLoader for such a data set.
    """

    kind = "stateful loader"
    iterable: DataLoader[Any]

    def __init__(self, stream: str, iterable: DataLoader[Any]) -> None:
        self.parts = LoaderParts(iterable)
        # It asks samplers for their states itself, but not torch's.
        self.parts.samplers = [s for s in self.parts.samplers if type(s) is DistributedSampler]
        self.parts.unknown = [s for s in self.parts.unknown if not is_torchdatas(s)]
        super().__init__(stream, iterable)
        self.owned = [iterable, *self.parts.owned]

    def find_fault(self) -> str | None:
        """Orders that it finds again too late or not at all."""
        batches = self.iterable.batch_sampler
        late = batches is None or type(batches) is BatchSampler
        inner = self.iterable.sampler if batches is None else batches
        while type(inner) is BatchSampler:
            inner = inner.sampler
        if late and type(inner) in (*SHUFFLING, DistributedSampler):
            return (
                f"its {type(inner).__name__} is asked for the order again only when the next batch "
                "is drawn; pass it as sampler= with batch_size=, or use a DataLoader"
            )
        return order_fault(self.iterable, self.parts)

    def begin(self) -> Iterator[Any]:
        """A new epoch; what it starts from is noted."""
        self.parts.begin()
        return iter(self.iterable)

    def position(self) -> dict[str, Any]:
        """Its own state, and what that leaves out."""
        own = super().position()
        return {"layout": layout(self.iterable, self.parts), **own, **self.parts.plain()}

    def resume(self, position: dict[str, Any], drawn: int, agrees: Agrees) -> Iterator[Any]:
        """Load its state from the random states in which the epoch began."""
        self.check(position["layout"], layout(self.iterable, self.parts))
        self.parts.begin_again(position)
        iterator = super().resume(position, drawn, agrees)
        self.parts.finish(position)
        return iterator


def order_fault(loader: DataLoader[Any], parts: LoaderParts) -> str | None:
    """Why the order of a loader cannot be found again."""
    if loader.num_workers > 0 and not loader.in_order:
        return "with in_order=False the order is that in which workers happen to end; leave it out"
    if parts.unknown:
        return (
            f"its {type(parts.unknown[0]).__name__} keeps no position; give it state_dict() and "
            "load_state_dict(), or use a sampler of torch"
        )
    if any(g is torch.default_generator for g in parts.generators):
        return (
            "it draws from torch.default_generator, as everything else does; leave generator= out, "
            "or pass a torch.Generator that serves nothing else"
        )
    return None


def layout(loader: DataLoader[Any], parts: LoaderParts) -> dict[str, int | None]:
    """What decides how batches, seeds and workers belong together."""
    try:
        length = len(loader)
    except TypeError:
        length = None
    return {"batches": length, "num_workers": loader.num_workers, **parts.counts()}
