"""The benchmark `nas-difference`: differences where they must agree, and what it says of them."""

from __future__ import annotations

import json
import math
import re
import statistics

import pytest
import torch
import torch.nn.functional as F

import mlo
from mlo.errors import ConfigurationError
from mlo.report.style import styled
from problems.nas import setups
from problems.nas.benchmarks import difference_page as page
from problems.nas.benchmarks.comparing import (
    cosine,
    follow,
    make_search,
    reading,
    relative_error,
)
from problems.nas.benchmarks.difference import RADII, SPACES, NasDifferenceConfig, benchmark
from problems.nas.config import NASConfig
from problems.nas.programs import darts_problems
from problems.nas.scene import Scene
from problems.publishing import as_markdown

SMOOTH = ("none", "skip_connect", "avg_pool_3x3", "sep_conv_3x3")


@pytest.fixture(autouse=True)
def float32(float64):
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def results():
    return json.loads(page.RESULTS.read_text(encoding="utf-8"))


@pytest.fixture
def softened(monkeypatch):
    """Every ReLU is a softplus, in layers and in functions."""
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: F.softplus(x))


def config(ticks=1, operations=None, **more):
    search = {"ticks": ticks, "layers": 3, "channels": 4, "train_batch": 8, "valid_batch": 8}
    return NASConfig(
        space="cell",
        nodes=1,
        operations=operations,
        lookahead=True,
        programs=("darts",),
        search={**search, **more},
    )


def test_on_a_smooth_network_differences_are_exact_up_to_the_square_of_the_radius(softened):
    (read,) = follow(make_search(config(1, SMOOTH), 0, (4e-3, 2e-3), double=True), 1)
    wide, near = read["radii"].values()
    assert near["error"] < 2e-4
    assert wide["error"] / near["error"] == pytest.approx(4, rel=0.02)
    for found in (wide, near):
        assert found["cosine"] == pytest.approx(1, abs=1e-6)
        assert found["norm"] == pytest.approx(1, abs=1e-3)


def test_across_kinks_only_a_tiny_radius_agrees():
    (read,) = follow(make_search(config(), 3, (1e-2, 1e-6), double=True), 1)
    wide, tiny = read["radii"].values()
    assert tiny["error"] < 1e-3
    assert tiny["cosine"] == pytest.approx(1, abs=1e-6)
    assert wide["error"] > 0.1


def test_the_direct_gradient_and_the_product_are_the_two_parts_of_the_whole():
    settings = config()
    (read,) = follow(make_search(settings, 1, (1e-6,), double=True), 1)

    def gradient(method):
        scene = Scene(settings, 1)
        network, architecture = scene.supernet().double(), scene.architecture().double()
        scene.shares = type(scene.shares)(*((x.double(), y) for x, y in scene.shares))
        problems = darts_problems(network, architecture, ticks=1, hypergradient=method)
        engine = settings.engine(problems, scene.searched())
        found = engine.hypergradient("architecture")
        return torch.cat([g.flatten() for g in found.values()])

    direct, total = gradient(mlo.Direct()), gradient(mlo.OneStep())
    assert read["direct"] == pytest.approx(direct.norm().item(), rel=1e-10)
    assert read["product"] == pytest.approx((total - direct).norm().item(), rel=1e-8)
    assert read["first_order"] == pytest.approx(F.cosine_similarity(direct, total, 0).item())


def test_comparing_does_not_disturb_the_search():
    settings = config(3, ("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"))
    search = make_search(settings, 2, (1e-1, 1e-3))
    readings = follow(search, 2)
    assert [read["tick"] for read in readings] == [0, 2]
    plain = setups.search("darts", "darts search")(settings, 2, {}).engine
    for _ in range(settings.search.ticks):
        plain.step()
    for name, problem in plain.problems.items():
        found = search.engine.problems[name].module.state_dict()
        for key, value in problem.module.state_dict().items():
            assert torch.equal(value, found[key]), (name, key)


def test_hand_made_vectors_are_compared_as_by_hand():
    direct, exact = torch.tensor([0.0, 4.0]), torch.tensor([3.0, 0.0])
    found = reading(direct, exact, {0.5: torch.tensor([3.0, 3.0])})
    assert (found["direct"], found["product"]) == (4, 3)
    assert found["first_order"] == pytest.approx(4 / 5)
    assert found["radii"] == {
        "0.5": {
            "cosine": pytest.approx(math.sqrt(1 / 2)),
            "error": pytest.approx(1),
            "norm": pytest.approx(math.sqrt(2)),
            "total_cosine": pytest.approx((9 + 28) / (5 * math.hypot(3, 7))),
            "total_error": pytest.approx(3 / 5),
        }
    }
    assert cosine(exact, -2 * exact) == pytest.approx(-1)
    assert cosine(exact, direct) == 0
    assert relative_error(1.5 * exact, exact) == pytest.approx(0.5)
    assert math.isnan(cosine(exact, 0 * exact))


def test_a_bound_on_the_gradient_of_the_architecture_is_refused():
    with pytest.raises(ConfigurationError, match=r"clip_norm: expected none, found 5\.0"):
        make_search(config(architecture={"clip_norm": 5.0}), 0, (0.1,))


def test_a_quarter_is_that_of_the_readings_and_never_empty():
    ticks = list(range(9))
    assert page.quarter(ticks, last=False) == [0, 1, 2]
    assert page.quarter(ticks, last=True) == [6, 7, 8]
    assert page.quarter([7], last=True) == [7]


def test_the_committed_results_are_of_the_settings_that_they_name(results):
    settings = NasDifferenceConfig(**results["settings"])
    assert results["benchmark"] == benchmark.name
    assert set(results["parts"]) == set(SPACES)
    for part, found in results["parts"].items():
        assert found["recipe"] == settings.search(part).model_dump(
            mode="json", exclude={"evaluation"}
        )
        runs = [(run["dtype"], run["seed"]) for run in found["runs"]]
        assert runs == [
            *(("float32", seed) for seed in range(settings.seeds)),
            *(("float64", seed) for seed in range(settings.controls)),
        ]
        for run in found["runs"]:
            ticks = [read["tick"] for read in run["readings"]]
            assert ticks == list(range(0, settings.ticks, settings.every))
            for read in run["readings"]:
                assert set(read["radii"]) == {f"{radius:g}" for radius in RADII[run["dtype"]]}


def test_rows_are_medians_over_all_seeds(results):
    rows = page.difference_rows(results)
    runs = [r for r in results["parts"]["cells"]["runs"] if r["dtype"] == "float32"]
    count = math.ceil(len(runs[0]["readings"]) / 4)
    (row,) = (row for row in rows if row[:2] == ["cells, digits, float32", "radius 0.01"])
    middles = {
        key: [
            statistics.median(read["radii"]["0.01"][key] for run in runs for read in part(run))
            for part in (
                lambda run: run["readings"][:count],
                lambda run: run["readings"][-count:],
            )
        ]
        for key in ("cosine", "error", "total_cosine")
    }
    assert row[2] == " / ".join(f"{value:.2f}" for value in middles["cosine"])
    assert row[3] == " / ".join(f"{value:.2g}" for value in middles["error"])
    assert row[5] == " / ".join(f"{value:.4f}" for value in middles["total_cosine"])


def test_the_picture_shows_every_radius(results):
    with styled():
        figure = page.difference_picture(results)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == sum(map(len, RADII.values()))
    for place in page.PICTURES:
        assert (page.ROOT / place).is_file()


def test_the_page_has_the_table_of_the_committed_results(results):
    text = page.PAGE.read_text(encoding="utf-8")
    (found,) = re.findall(r"<!-- table: difference -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    assert found == as_markdown(page.difference_rows(results))
    assert "images/nas_difference.png" in text
