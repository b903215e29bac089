"""Search and training by the recipe are those of plain loops, on the examples they should see."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mlo.carry import Carry
from problems import sources
from problems.nas.architecture import Architecture
from problems.nas.genotype import MacroGenotype, read_genotype
from problems.nas.networks import make_network
from problems.nas.recipe import recipe
from problems.nas.scene import Scene
from problems.nas.setups import parameters
from problems.nas.space import MacroSpace
from problems.nas.supernet import make_supernet

from .small import OPERATIONS, config, numbered, repeat

CHANNELS, LAYERS, CLASSES, SHAPE = 2, 3, 10, (1, 8, 8)


@pytest.fixture(autouse=True)
def float32(float64):
    torch.set_default_dtype(torch.float32)


def seeded(number, build, seed=0):
    """What is built on the random state of a part; 5 the supernet, 7 upper, 10 the network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 * seed + number)
        return build()


def batches(part, size, number, seed=0):
    """Whole batches of shuffled epochs; 3 is that of training, 4 of validation, 11 retraining."""
    x, labels = part
    generator = torch.Generator().manual_seed(1000 * seed + number)
    while True:
        order = torch.randperm(len(labels), generator=generator)
        for k in range(len(labels) // size):
            index = order[k * size : (k + 1) * size]
            yield x[index], labels[index]


EVALUATION = {
    "ticks": 30,
    "batch": 64,
    "channels": 4,
    "label_smoothing": 0.1,
    "training": {"learning_rate": 0.2, "weight_decay": 3e-4, "clip_norm": 5.0},
}


def sgd_step(optimizer, loss, rate):
    optimizer.param_groups[0]["lr"] = rate
    optimizer.zero_grad()
    loss.backward()
    params = optimizer.param_groups[0]["params"]
    torch.nn.utils.clip_grad_norm_(params, 5.0)
    optimizer.step()


def half_cosine(rate, floor, t, ticks):
    return floor + (rate - floor) * (1 + math.cos(math.pi * t / ticks)) / 2


def close(found, expected):
    """The largest difference of two lists of tensors, which should be about rounding."""
    pairs = zip(found, expected, strict=True)
    return max((a - b).abs().max().item() for a, b in pairs) < 2e-6


def accuracy(network, part, *more):
    """Share of right predictions in evaluation mode."""
    modes = network.training, network.eval()
    with torch.no_grad():
        right = network(part[0], *more).argmax(1) == part[1]
    network.train(modes[0])
    return right.double().mean().item()


@pytest.mark.parametrize("lookahead", [False, True])
def test_a_search_of_first_order_is_two_optimizers_in_turn(lookahead):
    search = {"ticks": 12, "train_batch": 64, "architecture": {"rate": 0.05}}
    search["training"] = {"learning_rate": 0.2, "floor": 1e-3, "weight_decay": 3e-4, "clip_norm": 5}
    made = config("darts-first-order", lookahead=lookahead, search=search)
    found = repeat(made, stages=1)["darts-first-order search"]
    shares, space = Scene(made, 0).shares, MacroSpace.chain(LAYERS, OPERATIONS)
    network = seeded(
        5, lambda: make_supernet(space, CLASSES, SHAPE, channels=CHANNELS, layers=LAYERS)
    )
    alpha = seeded(7, lambda: Architecture(space))
    sgd = torch.optim.SGD(network.parameters(), lr=1, momentum=0.9, weight_decay=3e-4)
    adam = torch.optim.Adam(alpha.parameters(), lr=0.05, betas=(0.5, 0.999), weight_decay=1e-3)
    train, valid = batches(shares.train, 64, 3), batches(shares.valid, 10, 4)
    for t in range(12):
        x, labels = next(train)
        loss = F.cross_entropy(network(x, alpha()), labels)
        sgd_step(sgd, loss, half_cosine(0.2, 1e-3, t, 12))
        kept = [b.clone() for b in network.buffers()]
        x, labels = next(valid)
        adam.zero_grad()
        F.cross_entropy(network(x, alpha()), labels).backward()
        adam.step()
        for buffer, before in zip(network.buffers(), kept, strict=True):
            buffer.copy_(before)  # running statistics are of training batches only
    assert close(found.module("network").parameters(), network.parameters())
    assert close(found.module("architecture").parameters(), alpha.parameters())
    assert close(
        [b.float() for b in found.module("network").buffers()],
        [b.float() for b in network.buffers()],
    )
    rows = alpha()["layers"].detach().double()
    final = found.module("network"), found.module("architecture")()
    measured = found.result.last("network")
    assert measured == {"accuracy": accuracy(final[0], shares.valid, final[1])}
    assert measured["accuracy"] != accuracy(final[0], shares.test, final[1])
    entropy = -(rows * rows.log()).sum(1).mean().item()
    skips = sum(int(k) == 0 for k in rows.argmax(1))
    last = found.result.last("architecture")
    assert last == pytest.approx({"skip connections": skips, "entropy": entropy}, abs=1e-5)
    assert found.handed["genotype"] == alpha.genotype().to_json()
    assert found.handed["history"]["ticks"].tolist() == [0, 4, 8, 12]
    assert close([found.handed["history"]["mixing"]["layers"][-1]], [rows.float()])


@pytest.mark.parametrize("on", ["all", "search"])
def test_the_network_that_was_found_is_trained_from_scratch(on):
    made = config("darts-first-order", evaluation=EVALUATION | {"on": on})
    done = repeat(made, seed=2)
    genotype = read_genotype(done["darts-first-order search"].handed["genotype"])
    found = done["darts-first-order evaluation"]
    assert found.handed["genotype"] == genotype.to_json()
    network = seeded(10, lambda: make_network(genotype, CLASSES, SHAPE, channels=4), seed=2)
    shares = Scene(made, 2).shares
    both = [torch.cat(pair) for pair in zip(shares.train, shares.valid, strict=True)]
    drawn = batches(both if on == "all" else shares.train, 64, 11, seed=2)
    sgd = torch.optim.SGD(network.parameters(), lr=1, momentum=0.9, weight_decay=3e-4)
    for t in range(30):
        x, labels = next(drawn)
        loss = F.cross_entropy(network(x), labels, label_smoothing=0.1)
        sgd_step(sgd, loss, half_cosine(0.2, 0, t, 30))
    assert close(found.module("network").parameters(), network.parameters())
    parts = {"all": shares.test, "search": shares.valid, "train": shares.train}
    accuracies = {name: accuracy(found.module("network"), part) for name, part in parts.items()}
    assert len({*accuracies.values()}) == 3
    size = sum(p.numel() for p in network.parameters())
    expected = {"accuracy": accuracies[on], "parameters": size, "skip connections": genotype.skips}
    assert found.result.last("network") == expected
    assert found.handed["parameters"] == size


def test_all_programs_of_a_seed_begin_alike_and_see_the_same_batches():
    programs = ("darts", "lfm", "darts-first-order")
    made, engines = config(*programs), {}
    for stage in recipe.stages(made):
        if stage.name.endswith("search"):
            engines[stage.name] = stage.setup(made, 1, Carry()).engine
    nets = [
        engines["darts search"].problems["network"].module,
        engines["darts-first-order search"].problems["network"].module,
        engines["lfm search"].problems["learner"].module,
        engines["lfm search"].problems["relearner"].module,
    ]
    assert len({id(p) for net in nets for p in net.parameters()}) == 4 * len(
        [*nets[0].parameters()]
    )
    for net in nets[1:]:
        assert all(
            torch.equal(a, b) for a, b in zip(nets[0].parameters(), net.parameters(), strict=True)
        )
    alphas = [
        engines["darts search"].problems["architecture"].module.alpha_layers,
        engines["lfm search"].problems["architect"].module.architecture.alpha_layers,
    ]
    assert torch.equal(*alphas)
    first, second = (Scene(made, 1).searched() for _ in range(2))
    for name in ("train", "valid"):
        for a, b in zip(first[name], second[name], strict=True):
            assert all(torch.equal(one, two) for one, two in zip(a, b, strict=True))
    other = next(iter(Scene(made, 2).searched()["train"]))[2]
    assert not torch.equal(other, next(iter(first["train"]))[2])


def numbers(x):
    """Which examples of `numbered` these are."""
    assert (x == x[:, :1, :1, :1]).all()
    return x[:, 0, 0, 0].int().tolist()


@pytest.mark.parametrize("tests", [None, 20])
def test_shares_are_disjoint_and_stratified_and_drawn_by_the_seed(monkeypatch, tests):
    monkeypatch.setattr(sources, "_loaded", lambda *_: numbered(tests))
    made = config("darts", search={"train_portion": 0.75, "train_batch": 8, "valid_batch": 8})
    scene = Scene(made, 0)
    train, valid, test = (numbers(part[0]) for part in scene.shares)
    assert len({*train, *valid, *test}) == len(train) + len(valid) + len(test)
    sizes = np.array([40, 24, 16, 12])
    if tests is None:
        assert sorted([*train, *valid, *test]) == [*range(92)]
        assert scene.shares.test[1].bincount().tolist() == (sizes / 4).tolist()
        sizes = sizes * 3 // 4
    else:
        assert sorted([*train, *valid]) == [*range(92)]
        assert test == [*range(1000, 1020)]
    counts = scene.shares.train[1].bincount().numpy()
    assert np.abs(counts - 0.75 * sizes).max() <= 0.5
    assert (scene.shares.valid[1].bincount().numpy() == sizes - counts).all()
    again, other = Scene(made, 0).shares, Scene(made, 1).shares
    assert numbers(again.train[0]) == train
    assert numbers(other.train[0]) != train
    for name, part in (("train", train), ("valid", valid)):
        seen = [n for x, *_ in scene.searched()[name] for n in numbers(x)]
        assert len(seen) == len(part) // 8 * 8 == len(set(seen))
        assert set(seen) <= set(part)
    seen = [n for x, *_ in scene.evaluated()["train"] for n in numbers(x)]
    assert set(seen) <= {*train, *valid}
    assert set(seen) & {*train}
    assert set(seen) & {*valid}


@pytest.mark.parametrize("program", ["darts", "lfm"])
def test_no_test_example_is_used_in_a_search(monkeypatch, program):
    made, found = config(program), []
    for value in (0.0, torch.nan):
        data = numbered()
        data = data._replace(
            train=(torch.sin(data.train[0]), data.train[1]),
            test=(torch.full_like(data.test[0], value), data.test[1]),
        )
        monkeypatch.setattr(sources, "_loaded", lambda *_, data=data: data)
        done = repeat(made, stages=1)[f"{program} search"]
        looks = [(e.name, e.tick, e.metrics) for e in done.result.evaluations]
        found.append((looks, done.handed["genotype"], done.handed["history"]["mixing"]["layers"]))
    assert found[0][:2] == found[1][:2]
    assert torch.equal(found[0][2], found[1][2])


def test_a_genotype_at_random_is_of_the_space_and_the_seed():
    made = config("random")
    assert [stage.name for stage in recipe.stages(made)] == ["random evaluation"]
    genotypes = {Scene(made, seed).random_genotype() for seed in range(30)}
    assert len(genotypes) > 10
    assert {name for g in genotypes for name in g.layers} == set(OPERATIONS)
    assert Scene(made, 7).random_genotype() == Scene(made, 7).random_genotype()
    found = repeat(made)["random evaluation"]
    assert read_genotype(found.handed["genotype"]) == Scene(made, 0).random_genotype()


def test_a_chain_that_is_given_has_its_own_length():
    chain = MacroGenotype(layers=("conv_3x3",) * 4)
    found = repeat(config("given", genotype=chain.to_json()))["given evaluation"]
    assert len(found.module("network").layers) == 4
    assert found.handed["parameters"] == parameters(make_network(chain, 10, SHAPE, channels=3))
