"""Clean, balanced, disjoint meta sets, and long tails of what is left."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlo.errors import ConfigurationError, DataError
from problems.datasets import balanced_split, long_tail, long_tail_counts


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(2, 12), min_size=1, max_size=6),
    per_class=st.integers(1, 12),
    seed=st.integers(0, 2**31),
)
def test_parts_are_disjoint_complete_balanced_and_seeded(sizes, per_class, seed):
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=seeded(seed))]
    if per_class >= min(sizes):
        small = next(k for k, size in enumerate(sizes) if size <= per_class)
        with pytest.raises(ConfigurationError) as caught:
            balanced_split(labels, per_class, seeded(seed))
        for part in (f"the {sizes[small]} examples", f"class {small},", f"found {per_class}."):
            assert part in str(caught.value)
        return
    meta, rest = balanced_split(labels, per_class, seeded(seed))
    assert torch.equal(torch.cat([meta, rest]).sort().values, torch.arange(len(labels)))
    assert torch.bincount(labels[meta]).tolist() == [per_class] * len(sizes)
    assert torch.equal(meta, meta.sort().values)
    assert torch.equal(rest, rest.sort().values)
    again = balanced_split(labels, per_class, seeded(seed))
    assert torch.equal(again.meta, meta)
    assert torch.equal(again.rest, rest)


def test_another_seed_chooses_others_and_every_example_can_be_chosen():
    labels = torch.arange(40) % 4
    drawn = [balanced_split(labels, 3, seeded(seed)).meta for seed in range(60)]
    assert not torch.equal(drawn[0], drawn[1])
    # Each example is left out 60 times with probability 0.7^60, some 5e-10.
    assert torch.cat(drawn).unique().tolist() == [*range(40)]


def test_a_meta_set_larger_than_a_class_names_the_class_its_size_and_what_was_wanted():
    labels = torch.tensor([0] * 30 + [1] * 8 + [2] * 30)
    for wanted in (8, 9, 29):
        with pytest.raises(ConfigurationError, match=rf"8 examples of class 1, found {wanted}\b"):
            balanced_split(labels, wanted, seeded())
    assert len(balanced_split(labels, 7, seeded()).meta) == 21


def test_a_class_that_does_not_occur_is_refused():
    with pytest.raises(ConfigurationError, match="0 examples of class 1"):
        balanced_split(torch.tensor([0, 0, 2, 2]), 1, seeded())


@pytest.mark.parametrize("wanted", [0, -1])
def test_an_empty_meta_set_is_refused(wanted):
    with pytest.raises(ConfigurationError, match="per_class: expected at least 1"):
        balanced_split(torch.arange(10) % 2, wanted, seeded())


@pytest.mark.parametrize(
    "labels",
    [torch.zeros(0).long(), torch.eye(3).long(), torch.tensor([0, -1]), torch.tensor([0.0, 1.0])],
)
def test_what_are_no_classes_is_refused(labels):
    with pytest.raises(DataError, match="labels: expected one class"):
        balanced_split(labels, 1, seeded())


@pytest.mark.parametrize(
    ("classes", "factor", "total"),
    [
        (10, 0.005, 11_177),
        (10, 0.01, 12_380),
        (10, 0.02, 13_967),
        (10, 0.05, 16_989),
        (10, 0.1, 20_391),
        (100, 0.005, 9_304),
        (100, 0.01, 10_626),
        (100, 0.02, 12_354),
        (100, 0.05, 15_594),
        (100, 0.1, 19_183),
    ],
)
def test_the_long_tails_of_cifar_have_the_published_totals(classes, factor, total):
    """Ten images of each class go to the meta set first: N_max = (50,000 - 10 K) / K."""
    labels = torch.arange(50_000) % classes
    meta, rest = balanced_split(labels, 10, seeded(1))
    kept = rest[long_tail(labels[rest], factor, generator=seeded(2)).kept]
    assert len(kept) == total
    assert not set(kept.tolist()) & set(meta.tolist())
    largest = (50_000 - 10 * classes) // classes
    assert torch.bincount(labels[kept]).tolist() == long_tail_counts(largest, classes, factor)
    sizes = torch.bincount(labels[kept])
    assert sizes[-1] == int(largest * factor)
    assert sizes[0] == largest


def test_an_imbalance_that_empties_a_class_is_refused():
    with pytest.raises(ConfigurationError, match="every class to keep an example"):
        long_tail(torch.arange(1000) % 10, 0.005, generator=seeded())
