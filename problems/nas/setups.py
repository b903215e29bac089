"""The stages of one program: the search, and the training of what was found from scratch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

import mlo
from mlo.recipe import Carry, Setup
from problems.naming import blaming
from problems.nas.architecture import Architecture
from problems.nas.config import NASConfig
from problems.nas.genotype import Genotype, MacroGenotype, read_genotype
from problems.nas.history import History
from problems.nas.named import genotype_of
from problems.nas.programs import darts_problems, evaluation_problems, lfm_problems
from problems.nas.scene import Scene


class _Searching(NamedTuple):
    """A search before its first tick.

    Attributes:
        problems: the program.
        networks: problem -> search network, of those that are looked at.
        architecture: what is searched for.
        lookahead: whether it is judged after trial moves.
    """

    problems: list[mlo.Problem]
    networks: Mapping[str, nn.Module]
    architecture: Architecture
    lookahead: bool


def search(program: str, stage: str) -> Callable[[NASConfig, int, Carry], Setup]:
    """What makes the search of a program ready, as the stage of that name."""

    def build(config: NASConfig, seed: int, carry: Carry) -> Setup:
        scene = Scene(config, seed, carry)
        found = _lfm(scene) if program == "lfm" else _darts(scene, program)
        every = -(-config.search.ticks // config.evaluations)
        history = History(found.architecture, found.architecture.genotype, every=every)

        def finish() -> dict[str, Any]:
            kept = {
                "genotype": found.architecture.genotype().to_json(),
                "history": history.values(),
                "data": scene.description(),
            }
            return {stage: kept}

        return Setup(
            scene.config.engine(found.problems, scene.searched(), lookahead=found.lookahead),
            config.spread_over(config.search.ticks, _looks(scene, found)),
            finish,
            (history,),
        )

    return build


def evaluation(program: str, stage: str, searched: str) -> Callable[..., Setup]:
    """What makes the training from scratch ready.

    Args:
        program: whose genotype is trained.
        stage: its name.
        searched: name of the stage that has searched for it, where it was searched for.
    """

    def build(config: NASConfig, seed: int, carry: Carry) -> Setup:
        scene = Scene(config, seed, carry)
        genotype = _genotype(scene, program, carry, searched)
        network = scene.network(genotype)
        engine = training(scene, network)

        def finish() -> dict[str, Any]:
            kept = {
                "genotype": genotype.to_json(),
                "parameters": parameters(network),
                "data": scene.description(),
            }
            return {stage: kept}

        def look() -> dict[str, float]:
            return {
                "accuracy": scene.accuracy(network, scene.measured_on()),
                "parameters": parameters(network),
                "skip connections": genotype.skips,
            }

        return Setup(
            engine,
            config.spread_over(config.evaluation.ticks, {"network": look}),
            finish,
        )

    return build


def training(scene: Scene, network: nn.Module) -> mlo.Engine:
    """The training of a discrete network from scratch.

    Raises:
        ConfigurationError: the settings do not fit the network.
    """
    settings = scene.config.evaluation
    with blaming("evaluation"):
        problems = evaluation_problems(
            network,
            ticks=settings.ticks,
            training=settings.training,
            auxiliary_weight=settings.auxiliary_weight,
            drop_path=settings.drop_path,
            label_smoothing=settings.label_smoothing,
        )
    return scene.config.engine(problems, scene.evaluated())


def parameters(network: nn.Module) -> int:
    """Parameters of a network without its auxiliary head, which is not there when it is used."""
    return sum(
        p.numel() for name, p in network.named_parameters() if not name.startswith("auxiliary")
    )


def _darts(scene: Scene, program: str) -> _Searching:
    search, first_order = scene.config.search, program == "darts-first-order"
    network, architecture = scene.supernet(), scene.architecture()
    problems = darts_problems(
        network,
        architecture,
        ticks=search.ticks,
        training=search.training,
        upper=search.architecture,
        hypergradient=mlo.Direct() if first_order else scene.config.method(),
    )
    # To first order the architecture is judged at the weights as they are, never at trial ones.
    lookahead = scene.config.lookahead and not first_order
    return _Searching(problems, {"network": network}, architecture, lookahead)


def _lfm(scene: Scene) -> _Searching:
    search = scene.config.search
    learner, relearner, architect = scene.supernet(), scene.supernet(), scene.architect()
    problems = lfm_problems(
        learner,
        relearner,
        architect,
        ticks=search.ticks,
        training=search.training,
        settings=search.lfm,
        hypergradient=scene.config.method(),
        constant=search.lfm.constant,
    )
    networks = {"learner": learner, "relearner": relearner}
    return _Searching(problems, networks, architect.architecture, scene.config.lookahead)


def _looks(scene: Scene, found: _Searching) -> dict[str, Callable[[], Mapping[str, float]]]:
    """What is looked at along a search: accuracies on the share it is judged on, and choices."""

    def looking(network: nn.Module) -> Callable[[], Mapping[str, float]]:
        def look() -> Mapping[str, float]:
            mixing = found.architecture()
            return {"accuracy": scene.accuracy(network, scene.shares.valid, mixing)}

        return look

    def choices() -> Mapping[str, float]:
        mixing = found.architecture()
        return {
            "skip connections": found.architecture.genotype().skips,
            "entropy": _entropy(mixing.values()),
        }

    looks = {name: looking(network) for name, network in found.networks.items()}
    return {**looks, "architecture": choices}


def _entropy(mixing: Any) -> float:
    """Mean entropy of the mixing weights of an edge, in nats: log O where nothing is chosen yet."""
    entropies = [-(torch.xlogy(weights, weights)).sum(1) for weights in mixing]
    return torch.cat(entropies).mean().item()


def _genotype(scene: Scene, program: str, carry: Carry, searched: str) -> Genotype | MacroGenotype:
    if program == "random":
        return scene.random_genotype()
    if program == "given":
        return genotype_of(str(scene.config.genotype))
    return read_genotype(carry[searched]["genotype"])
