"""What one step of a search costs: passes counted, beside the fewest that the mathematics needs."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, Literal

import torch

import mlo
from mlo.errors import ConfigurationError
from problems.lfm.validator import Validator
from problems.models import make_encoder
from problems.nas.architect import Architect
from problems.nas.architecture import Architecture
from problems.nas.passes import OperationCounter, Passes, count_passes
from problems.nas.programs.darts import darts_problems
from problems.nas.programs.lfm import lfm_problems
from problems.nas.space import CellSpace
from problems.nas.supernet import CellSupernet

Kind = Literal["darts", "lfm"]
Rule = Literal["first-order", "one-step", "finite-difference"]

RULES: dict[str, mlo.Hypergradient] = {
    "first-order": mlo.Direct(),
    "one-step": mlo.OneStep(),
    "finite-difference": mlo.FiniteDifference(radius=0.01),
}
"""The hypergradient methods that are compared."""

LEAST: dict[tuple[str, str, bool], dict[str, Passes]] = {
    ("darts", "first-order", False): {"network": Passes(2, 1, 1)},
    ("darts", "one-step", False): {"network": Passes(2, 2, 0, 1)},
    ("darts", "one-step", True): {"network": Passes(3, 3, 0, 1)},
    ("darts", "finite-difference", False): {"network": Passes(4, 2, 2)},
    ("darts", "finite-difference", True): {"network": Passes(5, 3, 2)},
    ("lfm", "one-step", False): {
        "learner": Passes(2, 2, 0, 1),
        "relearner": Passes(2, 2, 0, 1),
        "encoder": Passes(2, 2),
    },
    ("lfm", "one-step", True): {
        "learner": Passes(4, 3, 0, 1),
        "relearner": Passes(3, 3, 0, 1),
        "encoder": Passes(4, 2),
    },
    ("lfm", "finite-difference", False): {
        "learner": Passes(4, 2, 2),
        "relearner": Passes(4, 2, 2),
        "encoder": Passes(2, 2),
    },
    ("lfm", "finite-difference", True): {
        "learner": Passes(6, 3, 2),
        "relearner": Passes(5, 3, 2),
        "encoder": Passes(4, 2),
    },
}
"""(program, method, lookahead) -> network -> the fewest passes of a tick."""


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of a search; that of the published ones without arguments, but for the batch.

    Attributes:
        channels: of the first cells.
        layers: number of cells.
        nodes: of a cell.
        classes: number of classes.
        batch: examples of a training and of a validation batch; passes do not depend on it.
        side: of the images, in pixels.
        encoder: a name of `problems.models.ENCODERS`.
    """

    channels: int = 16
    layers: int = 8
    nodes: int = 4
    classes: int = 10
    batch: int = 4
    side: int = 32
    encoder: str = "resnet18"


def tick_cost(kind: Kind, rule: Rule, *, lookahead: bool, size: Size = Size()) -> dict[str, Any]:
    """Make one tick of a search on random images, and count.

    Args:
        kind: the program.
        rule: the hypergradient method.
        lookahead: the order of moves, see `mlo.Engine`.
        size: of networks and batches.

    Returns:
        Plain values: "passes" and "least" as network -> kind of pass -> number, "operations", the
        floating-point operations, and "seconds", with what counting takes.

    Raises:
        ConfigurationError: Nothing is derived for this combination.
    """
    least = LEAST.get((kind, rule, lookahead))
    if least is None:
        raise ConfigurationError(
            f"kind, rule, lookahead: expected one of {[*LEAST]}, found "
            f"{(kind, rule, lookahead)}. Choose one for which the least is derived."
        )
    problems, networks = _program(kind, rule, size)
    data = {name: [_batch(size)] for name in ("train", "valid")}
    # As in any later tick: a run looks at each loss a second time when it begins.
    guards = mlo.Guards(probe=False)
    engine = mlo.Engine(problems, data, lookahead=lookahead, dry_run=False, guards=guards)
    started = time.perf_counter()
    with OperationCounter() as operations:
        passes = count_passes(engine, networks)
    return {
        "passes": {name: dataclasses.asdict(each) for name, each in passes.items()},
        "least": {name: dataclasses.asdict(each) for name, each in least.items()},
        "operations": operations.count,
        "seconds": time.perf_counter() - started,
    }


def _program(
    kind: Kind, rule: Rule, size: Size
) -> tuple[list[mlo.Problem], dict[str, torch.nn.Module]]:
    space, method = CellSpace.darts(nodes=size.nodes), RULES[rule]
    architecture = Architecture(space)
    networks: dict[str, torch.nn.Module] = {
        name: CellSupernet(space, size.classes, channels=size.channels, layers=size.layers)
        for name in LEAST[kind, "one-step", True]
        if name != "encoder"
    }
    if kind == "darts":
        problems = darts_problems(networks["network"], architecture, ticks=1, hypergradient=method)
        return problems, networks
    networks["encoder"] = make_encoder(size.encoder, (3, size.side, size.side))
    validator = Validator(networks["encoder"], coefficients=size.batch, keyed_by="slot")
    problems = lfm_problems(
        networks["learner"],
        networks["relearner"],
        Architect(architecture, validator),
        ticks=1,
        hypergradient=method,
    )
    return problems, networks


def _batch(size: Size) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    # Few classes, so that each example has others of its own.
    labels = torch.arange(size.batch) % min(2, size.classes)
    images = torch.randn(size.batch, 3, size.side, size.side)
    return images, labels, torch.arange(size.batch)
