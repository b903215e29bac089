"""What must hold of streams and shared tensors, checked while the engine is built."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mlo.errors import DeclarationError, ParameterError, listed, nearest
from mlo.problem import Problem

Variables = Mapping[str, Mapping[str, nn.Parameter]]
"""Problem -> name -> live parameter."""


def check_streams(problems: Mapping[str, Problem], streams: tuple[str, ...]) -> None:
    """Every stream is read, and every stream that a scheduler follows exists."""
    read = {
        name
        for problem in problems.values()
        for reads in (problem.reads, problem.start_reads)
        if reads is not None
        for name in reads.names
    }
    for stream in streams:
        if stream not in read:
            raise DeclarationError(
                f"data stream '{stream}' is read by no loss{nearest(stream, read)}; name it in a "
                "loss or leave it out of data="
            )
    for problem in problems.values():
        if not isinstance(problem.scheduler_every, str | None):
            raise DeclarationError(
                f"problem '{problem.name}': scheduler_every= must be the name of a stream, got "
                f"{problem.scheduler_every!r}; use every= or a scheduler that counts itself",
                problem=problem.name,
            )
        if problem.scheduler_every is not None and problem.scheduler_every not in streams:
            raise DeclarationError(
                f"problem '{problem.name}': scheduler_every='{problem.scheduler_every}' is no data "
                f"stream{nearest(problem.scheduler_every, streams)} (streams: {listed(streams)})",
                problem=problem.name,
            )
        wants_metric = isinstance(problem.scheduler, ReduceLROnPlateau)
        if problem.scheduler_metric != "loss" and not wants_metric:
            raise DeclarationError(
                f"problem '{problem.name}': scheduler_metric='{problem.scheduler_metric}' is for a "
                f"scheduler that wants a metric, got {type(problem.scheduler).__name__}; use "
                "ReduceLROnPlateau, or leave scheduler_metric= out",
                problem=problem.name,
            )
        if problem.scheduler_every is not None and problem.scheduler is None:
            raise DeclarationError(
                f"problem '{problem.name}': scheduler_every= says when a scheduler steps, but "
                "scheduler= is None; give one, or leave scheduler_every= out",
                problem=problem.name,
            )


def check_sharing(problems: Mapping[str, Problem], variables: Variables) -> None:
    """No variable of one problem sits in the module of another."""
    owners: dict[object, list[tuple[str, str, Tensor]]] = {}
    for name, own in variables.items():
        for key, p in own.items():
            owners.setdefault(_memory(p), []).append((name, key, p))
    for name, problem in problems.items():
        for key, p in problem.module.named_parameters():
            for other, other_key, q in owners.get(_memory(p), ()):
                if other != name and _overlap(p, q):
                    raise ParameterError(
                        f"problems '{other}' and '{name}' share a parameter ('{other_key}' and "
                        f"'{key}'); each variable belongs to one problem. Copy the module, or let "
                        "one problem read the other",
                        problem=name,
                    )


def _memory(p: Tensor) -> object:
    """What two tensors have in common that may share elements."""
    return (p.device, p.untyped_storage().data_ptr()) if p.numel() and p.data_ptr() else id(p)


def _overlap(p: Tensor, q: Tensor) -> bool:
    """Whether the stretches of memory that two tensors of one storage span overlap."""
    (start, end), (other_start, other_end) = (_span(t) for t in (p, q))
    return start < other_end and other_start < end


def _span(p: Tensor) -> tuple[int, int]:
    start = int(p.storage_offset()) * p.element_size()
    last = sum((int(n) - 1) * int(s) for n, s in zip(p.shape, p.stride(), strict=True))
    return start, start + (last + 1) * p.element_size()
