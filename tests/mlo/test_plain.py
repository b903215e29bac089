"""Plain values: what they are, copies of them, and what counts as the same."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import torch

from mlo.checkpoint_file import read_checkpoint, write_checkpoint
from mlo.errors import CheckpointError
from mlo.plain import check_plain, copied, differences, same

ZERO = torch.zeros(2)
CONJUGATE = torch.view_as_complex(torch.tensor([[1.0, 2.0]])).conj()
SAME = {
    "empty, of stride 0": (torch.from_numpy(np.arange(0)), torch.zeros(0, dtype=torch.int64)),
    "conjugate": (CONJUGATE, CONJUGATE.resolve_conj()),
    "NaN": (torch.tensor([torch.nan]), torch.tensor([torch.nan])),
    "a view": (torch.arange(6).reshape(2, 3).T, torch.arange(6).reshape(2, 3).T.contiguous()),
    "sparse": (torch.eye(2).to_sparse(), torch.eye(2).to_sparse()),
    "number": (float("nan"), float("nan")),
    "without dimensions": (torch.tensor(1.5), torch.tensor(1.5)),
}
OTHER = {
    "sign of zero": (ZERO, -ZERO),
    "sign of the number zero": (0.0, -0.0),
    "dtype": (torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float32)),
    "shape": (torch.ones(2), torch.ones(2, 1)),
    "a last bit": (torch.tensor(1.0), torch.tensor(1.0).nextafter(torch.tensor(2.0))),
    "device": (torch.ones(2), torch.ones(2, device="meta")),
    "kind": (1, 1.0),
    "truth": (1, True),
    "a tensor and a number": (torch.tensor(1.0), 1.0),
    "sparse": (torch.eye(2).to_sparse(), torch.eye(2)),
}


@pytest.mark.parametrize("case", SAME)
def test_these_are_the_same(case):
    assert same(*SAME[case])
    assert same(*SAME[case][::-1])


@pytest.mark.parametrize("case", OTHER)
def test_these_are_not(case):
    assert not same(*OTHER[case])
    assert not same(*OTHER[case][::-1])


def test_differences_are_told_by_their_places():
    before = {"a": [1, {"b": torch.ones(2)}], "c": 1, "d": (1, 2)}
    now = {"a": [1, {"b": torch.zeros(2)}], "e": 1, "d": (1, 2, 3)}
    assert [path for path, _, _ in differences(before, now)] == ["a[1].b", "c", "d", "e"]
    assert list(differences(before, before)) == []


def test_copies_share_nothing_and_keep_containers_and_repetitions():
    t = torch.ones(2)
    given = {
        "twice": [t, t],
        "counted": collections.Counter([3, 3]),
        "ordered": collections.OrderedDict(a=(t,)),
    }
    found = copied(given)
    t.zero_()
    assert found["twice"][0] is found["twice"][1] is found["ordered"]["a"][0]
    assert found["twice"][0].tolist() == [1.0, 1.0]
    assert type(found["counted"]) is collections.Counter
    assert found["counted"] == {3: 2}


class Strange(torch.Tensor):
    pass


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": [1, {2}]}, r"state\['a'\]\[1\] is a set"),
        ({"a": np.ones(2)}, r"state\['a'\] is a ndarray"),
        ({(1, 2): 1}, r"has the key \(1, 2\) of type tuple"),
        ({"a": 1 << 2039}, r"state\['a'\] is a whole number of 2040 bits"),
        ({"a": torch.ones(2).as_subclass(Strange)}, r"state\['a'\] is a Strange of shape"),
        ({"a": collections.defaultdict(int)}, r"state\['a'\] is a defaultdict"),
    ],
)
def test_what_no_file_gives_back_is_named_with_its_place(value, said):
    with pytest.raises(CheckpointError, match=said):
        check_plain(value, "state")


def test_the_largest_number_that_is_allowed_comes_back(tmp_path):
    given = {"a": (1 << 2039) - 1, "b": -(1 << 2038)}
    write_checkpoint(tmp_path / "state.pt", given)
    assert read_checkpoint(tmp_path / "state.pt") == given


def test_of_a_view_only_what_is_seen_is_written(tmp_path):
    large = torch.randn(100_000)
    given = {"row": large[10:20], "column": large.reshape(1000, 100)[:, 3]}
    written = write_checkpoint(tmp_path / "state.pt", given)
    assert written.bytes < 20_000
    assert list(differences(given, read_checkpoint(tmp_path / "state.pt"))) == []
