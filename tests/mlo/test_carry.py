"""What stages hand on: kept as it was, safe to open, and errors that name the place."""

from __future__ import annotations

import enum
import pathlib
import pickle
import random
import types
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from mlo.carry import Carry
from mlo.errors import CarryError, DataError

from ..damaged import damaged

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.int64, torch.uint8, torch.bool),
]


def values():
    """Something of everything that may be handed on."""
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    return {
        "plain": {"t": True, "i": -(2**70), "f": 0.1, "s": "ä\n\u2028", "n": None, "": -0.0},
        "odd": [float("inf"), [], {}, [[1, ["x"]]]],
        "tensors": {str(t): torch.tensor([0, 1, 2, 3]).to(t) for t in DTYPES},
        "nan": torch.tensor([float("nan"), -0.0, float("-inf")]),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(3.5),
        "state": network.state_dict(),
        "parameter": network[0].weight,
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "part": torch.arange(1e5)[10:13],
        "expanded": torch.ones(1, 3).expand(4, 3),
        "graph": torch.ones(2, requires_grad=True).exp(),
    }


def plain(value):
    """The value with every tensor as its type, shape and bytes."""
    if isinstance(value, torch.Tensor):
        raw = value.detach().contiguous()
        raw = torch.view_as_real(raw) if raw.is_complex() else raw
        return str(value.dtype), tuple(value.shape), raw.flatten().view(torch.uint8).tolist()
    if isinstance(value, dict | Carry):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return type(value), repr(value)


def saved(path: pathlib.Path, carry=None) -> bytes:
    (Carry(values()) if carry is None else carry).save(path)
    return path.read_bytes()


def test_what_is_handed_on_comes_back_bit_for_bit_before_and_after_the_disk(tmp_path):
    torch.manual_seed(1)
    expected = plain({**values(), "state": dict(values()["state"])})
    torch.manual_seed(1)
    carry = Carry(values())
    saved(tmp_path / "carry.pt", carry)
    loaded = Carry.load(tmp_path / "carry.pt")
    for found in (carry, loaded):
        names = expected.keys() - {"state", "parameter"}  # drawn anew by every call
        assert {name: plain(found)[name] for name in names} == {n: expected[n] for n in names}
    assert plain(loaded) == plain(carry)
    assert type(loaded["parameter"]) is type(carry["parameter"]) is torch.Tensor
    assert carry["transposed"].stride() == loaded["transposed"].stride()


def test_tensors_are_kept_without_graphs_as_copies_that_nobody_changes():
    weight = nn.Parameter(torch.ones(3))
    given = {"w": weight, "list": [torch.zeros(2)]}
    carry = Carry(given)
    with torch.no_grad():
        weight += 1
    given["list"][0] += 1
    looked = carry["list"]
    looked[0] += 1
    looked.append(3)
    carry["w"].mul_(5)
    carry.get("w").mul_(5)
    later = carry.and_then({"more": 1})
    for found in (carry, later):
        assert found["w"].tolist() == [1, 1, 1]
        assert [t.tolist() for t in found["list"]] == [[0, 0]]
    assert not carry["w"].requires_grad


def test_a_part_of_a_large_tensor_makes_a_small_file(tmp_path):
    assert len(saved(tmp_path / "c", Carry({"part": torch.zeros(10**6)[:3]}))) < 5000


class Word(str, enum.Enum):  # noqa: UP042 - str() of it is not its value
    HIGH = "high"


class Grade(enum.IntEnum):
    BEST = 1


def test_numbers_and_words_of_other_kinds_become_plain_ones_that_can_be_loaded(tmp_path):
    given = {
        "f": np.float64(0.1),
        "w": Word.HIGH,
        "g": Grade.BEST,
        np.str_("key"): types.MappingProxyType({"t": (1, 2)}),
    }
    expected = {"f": 0.1, "w": "high", "g": 1, "key": {"t": [1, 2]}}
    carry = Carry(given)
    carry.save(tmp_path / "carry.pt")
    for found in (dict(carry), dict(Carry.load(tmp_path / "carry.pt"))):
        assert plain(found) == plain(expected)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"net": nn.Linear(1, 1)}, r"carry\['net'\]: .*found Linear; .*state_dict"),
        ({"a": {"b": [1, {"c": object()}]}}, r"carry\['a'\]\['b'\]\[1\]\['c'\]: .*found object"),
        ({"a": {1: 2}}, r"carry\['a'\]: .*found a mapping with other keys"),
        ({1: 2}, r"carry: .*found a mapping with other keys"),
        ({"s": {1, 2}}, r"carry\['s'\]: .*found set"),
        ({"n": np.zeros(2)}, r"carry\['n'\]: .*found ndarray"),
        ({"m": torch.zeros(2, device="meta")}, r"carry\['m'\]: .*found Tensor"),
        ({"f": print}, r"carry\['f'\]: "),
        (None, r"carry: expected \{name: value\}.*found NoneType"),
        ([1], r"carry: expected \{name: value\}.*found list"),
        (torch.ones(2), r"carry: expected \{name: value\}.*found Tensor"),
    ],
)
def test_what_cannot_be_handed_on_is_named_with_its_place(value, place):
    for make in (Carry, Carry({"x": 1}).and_then):
        with pytest.raises(CarryError, match=place):
            make(value)


def test_a_missing_name_is_told_with_what_there_is_and_the_nearest():
    carry = Carry({"weights": 1, "rate": 2})
    with pytest.raises(CarryError, match=r"'weihts'.*there is: 'weights', 'rate'.*mean 'weights'"):
        carry["weihts"]
    with pytest.raises(CarryError, match=r"there is: none"):
        Carry()["x"]
    assert (carry.get("weihts"), carry.get("weihts", 3), carry.get("rate")) == (None, 3, 2)
    assert "weihts" not in carry
    assert (list(carry), len(carry), "rate" in carry) == (["weights", "rate"], 2, True)


def test_later_values_take_the_place_of_earlier_ones_and_the_earlier_carry_stays():
    first = Carry({"a": 1, "b": 2})
    assert dict(first.and_then({"b": 3, "c": 4})) == {"a": 1, "b": 3, "c": 4}
    assert dict(first) == {"a": 1, "b": 2}


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return pathlib.Path.touch, (self.mark,)


def test_a_file_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    mark, path = tmp_path / "exploded", tmp_path / "carry.pt"
    bombs = [pickle.dumps({"x": Bomb(mark)}), None]
    torch.save({"x": Bomb(mark)}, path)
    bombs[1] = path.read_bytes()
    torch.save({"x": Bomb(mark)}, path, _use_new_zipfile_serialization=False)
    bombs.append(path.read_bytes())
    for bomb in bombs:
        path.write_bytes(bomb)
        with pytest.raises(DataError, match=r"carry\.pt"):
            Carry.load(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the bomb is none"


def test_no_damage_passes_for_the_values_and_none_surfaces_as_another_error(tmp_path):
    path, draw = tmp_path / "carry.pt", random.Random(3)
    whole = saved(path)
    expected, refused = plain(Carry.load(path)), 0
    for data in damaged(whole, 300, draw):
        path.write_bytes(data)
        try:
            # Padding between the entries may hold anything.
            assert plain(Carry.load(path)) == expected
        except DataError:
            refused += 1
    assert refused > 150


def test_one_changed_bit_in_a_tensor_is_found(tmp_path):
    path = tmp_path / "carry.pt"
    whole = saved(path, Carry({"x": torch.full((1000,), 1.5)}))
    place = whole.index(torch.full((50,), 1.5).numpy().tobytes()) + 200
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    torch.load(path, weights_only=True)  # torch itself does not look
    with pytest.raises(DataError, match="checksum"):
        Carry.load(path)


def test_files_that_are_no_carry_are_refused(tmp_path):
    path = tmp_path / "carry.pt"
    with pytest.raises(DataError, match="FileNotFoundError"):
        Carry.load(path)
    for content in ([1], torch.ones(2), 3, {1: 2}):
        torch.save(content, path)
        with pytest.raises(DataError, match="no carry"):
            Carry.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello", "there")
    with pytest.raises(DataError):
        Carry.load(path)
