"""Pictures of `reweighting`: what is drawn is what was handed on, and it can be read."""

from __future__ import annotations

import itertools
import math

import numpy
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from sklearn.metrics import confusion_matrix, roc_auc_score

from problems.reweighting.pictures import pictures, right_and_wrong

from .handed import counts_of, handed_on

SHORT = ("plain", "meta-weight-net", "lfm")


def figures(kept):
    return dict(pictures(kept, "digits"))


def panel(figure, name):
    (found,) = [axes for axes in figure.axes if axes.get_title(loc="left").split(",")[0] == name]
    return found


def shares(kept, stage, network):
    """Row-normalised confusion matrices, as scikit-learn makes them of the single answers."""
    found = []
    for one in kept[stage].values():
        counts = one["confusion"][network]
        cells = list(itertools.product(range(len(counts)), repeat=2))
        times = [int(counts[cell]) for cell in cells]
        right, answer = (numpy.repeat([cell[k] for cell in cells], times) for k in (0, 1))
        found.append(confusion_matrix(right, answer, normalize="true"))
    return numpy.array(found)


def seen(axis, number):
    """The texts at an axis, without those of places beyond its ends."""
    low, high = sorted(axis.get_view_interval())
    ticks = axis.get_ticklabels()
    return [axis.label, *(t for t in ticks if low <= t.get_position()[number] <= high)]


CASES = {
    "all stages": {"seeds": 2, "classes": 3},
    "one network, few examples": {"stages": ("plain",), "largest": 3, "each": 2},
    "few examples, many seeds, imbalance": {
        "stages": ("lfm",),
        "seeds": 5,
        "largest": 6,
        "factor": 0.2,
        "each": 3,
    },
    "hundred classes": {"stages": SHORT, "classes": 100, "seeds": 2, "factor": 0.01, "noise": 0.0},
    "two classes, large": {"stages": SHORT, "classes": 2, "largest": 50000, "noise": 0.0},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_no_text_lies_on_another_and_none_leaves_the_figure(case):
    for name, figure in figures(handed_on(**case)).items():
        FigureCanvasAgg(figure).draw()
        width, height = figure.bbox.size
        parts = [figure._suptitle, figure._supxlabel, figure._supylabel, *figure.legends]
        for axes in figure.axes:
            parts += [*seen(axes.xaxis, 0), *seen(axes.yaxis, 1), axes._left_title]
        boxes = [part.get_window_extent() for part in parts if part is not None]
        boxes = [box for box in boxes if box.width > 0]
        for box in boxes:
            assert box.x0 >= -1, name
            assert box.x1 <= width + 1, name
            assert box.y0 >= -1, name
            assert box.y1 <= height + 1, name
        for first, second in itertools.combinations(boxes, 2):
            assert not first.padded(-1).overlaps(second.padded(-1)), name


@pytest.mark.parametrize("classes", [10, 100])
def test_matrices_are_the_mean_shares_of_each_right_class(classes):
    kept = handed_on(SHORT, classes=classes, seeds=3, each=7)
    figure = figures(kept)["confusion"]
    networks = {"plain": ("plain", "classifier"), "lfm relearner": ("lfm", "relearner")}
    for name, (stage, network) in networks.items():
        axes = panel(figure, name)
        expected = shares(kept, stage, network).mean(axis=0)
        drawn = axes.images[0].get_array().filled(math.nan)
        numpy.testing.assert_allclose(drawn, expected, rtol=0, atol=1e-14)
        written = {text.get_position(): text.get_text() for text in axes.texts}
        if classes == 100:
            assert written == {}
        else:
            assert written == {
                (column, row): f"{100 * expected[row, column]:.0f}"
                for row, column in itertools.product(range(classes), repeat=2)
                if expected[row, column] >= 0.005
            }


def test_accuracies_are_means_in_bands_from_the_lowest_to_the_highest_seed():
    kept = handed_on(SHORT, seeds=3)
    figure = figures(kept)["class-accuracy"]
    accuracies = 100 * numpy.diagonal(shares(kept, "lfm", "learner"), axis1=1, axis2=2)
    reference = 100 * numpy.diagonal(shares(kept, "plain", "classifier"), axis1=1, axis2=2)
    axes = panel(figure, "lfm learner")
    grey, line = axes.lines
    numpy.testing.assert_allclose(line.get_ydata(), accuracies.mean(axis=0), atol=1e-11)
    numpy.testing.assert_allclose(grey.get_ydata(), reference.mean(axis=0), atol=1e-11)
    (band,) = axes.collections
    x, y = band.get_paths()[0].vertices.T
    for place in range(10):
        ends = y[x == place].min(), y[x == place].max()
        expected = accuracies[:, place].min(), accuracies[:, place].max()
        assert ends == pytest.approx(expected, abs=1e-11)
    assert len(panel(figure, "plain").lines) == 1, "the reference is not drawn onto itself"
    assert "grey: plain" in figure._suptitle.get_text()


def test_one_seed_has_no_band():
    figure = figures(handed_on(SHORT))["class-accuracy"]
    assert all(not axes.collections for axes in figure.axes)
    assert "band" not in figure._suptitle.get_text()


def test_unequal_classes_are_ordered_by_size_in_all_panels():
    kept = handed_on(("plain", "l2rw"), seeds=2)
    sizes = [20, 300, 10, 50, 40, 70, 60, 80, 90, 100]
    for one in (one for seeds in kept.values() for one in seeds.values()):
        one["data"]["counts"] = sizes
    figure = figures(kept)["class-accuracy"]
    order = [1, 9, 8, 7, 5, 6, 3, 4, 0, 2]
    assert list(panel(figure, "training examples").lines[0].get_ydata()) == sorted(sizes)[::-1]
    expected = 100 * numpy.diagonal(shares(kept, "l2rw", "classifier").mean(axis=0))[order]
    numpy.testing.assert_allclose(panel(figure, "l2rw").lines[-1].get_ydata(), expected)
    first = 100 * numpy.diagonal(shares(kept, "plain", "classifier").mean(axis=0))[order]
    numpy.testing.assert_allclose(panel(figure, "l2rw").lines[0].get_ydata(), first)
    for axes in figure.axes:
        assert [label.get_text() for label in axes.get_xticklabels()] == list(map(str, order))


def test_a_class_without_a_test_example_is_a_gap():
    kept = handed_on(("plain",), seeds=2)
    for one in (one for seeds in kept.values() for one in seeds.values()):
        for counts in one["confusion"].values():
            counts[4] = 0
    kept["plain"][1]["confusion"]["classifier"][7] = 0
    drawn = figures(kept)
    line = panel(drawn["class-accuracy"], "plain").lines[0].get_ydata()
    assert numpy.flatnonzero(numpy.isnan(line)).tolist() == [4]
    alone = kept["plain"][0]["confusion"]["classifier"][7].numpy()
    assert line[7] == pytest.approx(100 * alone[7] / alone.sum()), "the seed that has it"
    matrix = panel(drawn["confusion"], "plain").images[0].get_array().filled(math.nan)
    assert numpy.isnan(matrix[4]).all()
    for name in ("confusion", "class-accuracy"):
        FigureCanvasAgg(drawn[name]).draw()


def test_histograms_are_the_shares_of_right_and_of_wrong_labels():
    kept = handed_on(SHORT, seeds=3)
    axes = panel(figures(kept)["weights"], "lfm")
    seeds = kept["lfm"].values()
    weights = torch.cat([one["weights"] for one in seeds])
    corrupted = torch.cat([one["corrupted"] for one in seeds])
    filled = [patch for patch in axes.patches if patch.get_fill()]
    for patch, chosen in zip(filled, (~corrupted, corrupted), strict=True):
        values, edges, _ = patch.get_data()
        assert edges[[0, -1]] == pytest.approx([float(weights.min()), float(weights.max())])
        inner = [
            int(((weights[chosen] >= low) & (weights[chosen] < high)).sum())
            for low, high in itertools.pairwise(edges)
        ]
        inner[-1] += int((weights[chosen] == edges[-1]).sum())
        numpy.testing.assert_allclose(values, numpy.array(inner) / int(chosen.sum()), atol=1e-14)
    areas = right_and_wrong(kept)["lfm"].values()
    assert axes.get_title(loc="left") == f"lfm, AUC {sum(areas) / 3:.3f}"


def one_program(weights, corrupted):
    labels = torch.arange(len(weights)) % 3
    return {"l2rw": {0: {"weights": weights, "labels": labels, "corrupted": corrupted}}}


def test_few_weights_far_above_all_others_are_in_the_last_bar():
    weights = torch.cat([torch.linspace(0, 1, 995), torch.full((5,), 100.0)])
    axes = figures(one_program(weights, torch.arange(1000) % 2 == 0))["weights"].axes[0]
    values, edges, _ = axes.patches[0].get_data()
    assert 0.9 < edges[-1] < 1
    assert sum(values) == pytest.approx(1)
    assert "all above" in axes.get_xlabel()


@pytest.mark.parametrize("weights", [torch.ones(30), torch.full((30,), math.nan)])
def test_equal_weights_and_weights_that_are_nan_are_drawn(weights):
    figure = figures(one_program(weights, torch.arange(30) % 2 == 0))["weights"]
    FigureCanvasAgg(figure).draw()
    name = "l2rw, 30 not finite" if weights.isnan().any() else "l2rw, AUC 0.500"
    assert figure.axes[0].get_title(loc="left") == name


@pytest.mark.parametrize("factor", [0.01, 1.0])
def test_where_no_label_is_wrong_the_mean_weight_of_each_class_is_drawn(factor):
    kept = handed_on(SHORT, seeds=3, noise=0.0, factor=factor)
    axes = panel(figures(kept)["weights"], "meta-weight-net")
    means = numpy.array(
        [
            [float(one["weights"][one["labels"] == k].mean()) for k in range(10)]
            for one in kept["meta-weight-net"].values()
        ]
    )
    (points,) = axes.lines
    places = counts_of(10, 500, 0.01) if factor < 1 else range(10)
    assert list(points.get_xdata()) == list(places)
    numpy.testing.assert_allclose(points.get_ydata(), means.mean(axis=0), rtol=1e-12)
    ranges = numpy.array([segment[:, 1] for segment in axes.collections[0].get_segments()])
    numpy.testing.assert_allclose(ranges, numpy.array([means.min(0), means.max(0)]).T, rtol=1e-12)


def test_what_is_missing_is_left_out():
    assert figures({}) == {}
    assert figures({"plain": {}}) == {}
    names = ("plain", "focal", "l2rw", "meta-weight-net", "learned-weights", "lfm")
    kept = handed_on(names, seeds=2, classes=3)
    del kept["plain"][0], kept["focal"], kept["lfm"][1]["confusion"]
    for seed in range(2):
        del kept["learned-weights"][seed]["weights"], kept["l2rw"][seed]["data"]
    drawn = figures(kept)
    titles = {n: [a.get_title(loc="left") for a in f.axes] for n, f in drawn.items()}
    assert [title.split(",")[0] for title in titles["weights"]] == ["meta-weight-net", "lfm"]
    assert titles["confusion"] == titles["class-accuracy"]
    assert "focal" not in titles["confusion"]
    assert len(panel(drawn["class-accuracy"], "lfm learner").collections) == 0, "one seed left"
    weightless = handed_on(("plain", "ensemble"))
    assert list(figures(weightless)) == ["confusion", "class-accuracy"]
    assert [a.get_title(loc="left") for a in figures(weightless)["confusion"].axes] == [
        "plain",
        "ensemble",
    ]


@pytest.mark.parametrize("digits", [1, 2, 12])
def test_the_area_is_that_of_scikit_learn_ties_included(digits):
    kept = handed_on(SHORT, seeds=3, largest=80)
    for one in kept["lfm"].values():
        one["weights"] = one["weights"].round(decimals=digits).float().requires_grad_()
    found = right_and_wrong(kept)
    assert list(found) == ["meta-weight-net", "lfm"]
    for stage, areas in found.items():
        for seed, area in areas.items():
            one = kept[stage][seed]
            expected = roc_auc_score(one["corrupted"], -one["weights"].detach().numpy())
            assert area == pytest.approx(expected, abs=1e-12)


def test_there_is_no_area_where_all_labels_are_right_or_all_are_wrong():
    assert right_and_wrong(handed_on(SHORT, noise=0.0)) == {}
    assert right_and_wrong(one_program(torch.rand(9), torch.ones(9, dtype=bool))) == {}
    weights = torch.tensor([math.nan, 1.0, 2.0])
    assert math.isnan(right_and_wrong(one_program(weights, weights > 1))["l2rw"][0])
