"""Weights from files: all fits or nothing moves, and no file executes code."""

from __future__ import annotations

import argparse
import collections
import random
import re
import struct
import zipfile

import pytest
import torch
from torch import nn

from mlo import load_weights
from mlo.errors import DataError

from ..bombs import blows_up, by_exec, npz, replaced, torch_file, weights_bombs
from ..damaged import damaged


def net(seed=0, **options):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2), **options)


def state_of(module):
    return {name: part.clone() for name, part in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one
    )


def refused(module, path, match, **options):
    """The message of a refusal, after which the module is as it was."""
    before = state_of(module)
    with pytest.raises(DataError, match=match) as caught:
        load_weights(module, path, **options)
    assert repr(str(path)) in str(caught.value)
    assert same(state_of(module), before)
    return str(caught.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pt"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [dict, lambda s: s, lambda s: {"state_dict": s, "epoch": 3}])
def test_weights_come_back_bit_for_bit_in_the_tensors_that_are_there(path, zipped, wrap):
    source, target = net(0), net(1)
    source(torch.randn(9, 3))  # running statistics that are not those of the start
    path.write_bytes(torch_file(wrap(source.state_dict()), zipped=zipped))
    places = [id(p) for p in target.parameters()]
    pointers = [p.data_ptr() for p in target.parameters()]
    assert not same(state_of(source), state_of(target))
    assert load_weights(target, str(path)) == []
    assert same(state_of(source), state_of(target))
    assert places == [id(p) for p in target.parameters()]
    assert pointers == [p.data_ptr() for p in target.parameters()]
    assert all(p.requires_grad for p in target.parameters())
    x = torch.randn(5, 3)
    assert torch.equal(source.eval()(x), target.eval()(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floating_numbers_of_another_precision_are_converted(path, dtype):
    source, target = net(0).to(dtype), net(1)
    torch.save(source.state_dict(), path)
    load_weights(target, path)
    for name, part in target.state_dict().items():
        assert torch.equal(part, source.state_dict()[name].to(part.dtype))
    assert target[0].weight.dtype == torch.float64


def test_a_number_that_becomes_infinite_in_a_narrower_format_is_refused(path):
    target, state = net(1).float(), state_of(net(0))
    state["2.bias"][1] = float("inf")  # what is infinite may stay so
    torch.save(state, path)
    load_weights(target, path)
    assert target[2].bias[1] == float("inf")
    state["0.weight"][0, 1] = 1e39
    torch.save(state, path)
    refused(target, path, r"0\.weight: expected numbers in the range of float32 \[4, 3\]")


def other_state(**changes):
    state = state_of(net(0))
    for key, value in changes.items():
        name = key.replace("_", ".")
        if value is None:
            del state[name]
        else:
            state[name] = value
    return state


UNFIT = {
    "a shape": ({"2_weight": torch.ones(2, 5)}, r"2\.weight: expected float64 \[2, 4\], found .*5"),
    "a transposed one": ({"0_weight": torch.ones(3, 4)}, r"1 of the weights.*found float32 \[3, 4"),
    "a rank": ({"2_bias": torch.ones(1, 2)}, r"found float32 \[1, 2\]"),
    "whole numbers": ({"2_bias": torch.ones(2, dtype=torch.int64)}, r"found int64 \[2\]"),
    "complex ones": ({"2_bias": torch.ones(2) * 1j}, r"found complex64 \[2\]"),
    "a word": ({"2_bias": "weights"}, "found str"),
    "nothing": ({"2_bias": [0.0, 0.0]}, "found list"),
    "sparse": ({"2_weight": torch.eye(2, 4).to_sparse()}, r"found float32 sparse_coo \[2, 4\]"),
    "on no device": ({"2_bias": torch.ones(2, device="meta")}, "found float32.*on no device"),
    "a name missing": ({"2_bias": None}, r"found 1 missing: '2\.bias', and 0 others: none"),
    "a name more": ({"3_bias": torch.ones(1)}, r"0 missing: none, and 1 others: '3\.bias'"),
    "two of them": (
        {"0_bias": torch.ones(1), "2_bias": torch.ones(7)},
        r"2 of the weights do not fit.*0\.bias: .*; 2\.bias: ",
    ),
}


@pytest.mark.parametrize("what", UNFIT)
def test_what_does_not_fit_is_named_and_nothing_moves(path, what):
    changes, message = UNFIT[what]
    torch.save(other_state(**changes), path)
    refused(net(1), path, message)


def test_names_may_differ_where_that_is_asked_for_and_shapes_may_not(path):
    source, target = other_state(**{"2_bias": None, "3_bias": torch.ones(1)}), net(1)
    bias = target[2].bias.clone()
    torch.save(source, path)
    assert load_weights(target, path, strict=False) == ["2.bias"]
    assert torch.equal(target[2].bias, bias)
    assert torch.equal(target[0].weight, source["0.weight"])
    torch.save({**source, "2.weight": torch.ones(4, 2)}, path)
    refused(target, path, r"2\.weight: ", strict=False)
    torch.save({"encoder.0.weight": torch.ones(4, 3)}, path)
    refused(target, path, "at least one of the names '0.weight', .*'encoder.0", strict=False)


def test_optional_names_may_be_absent_on_either_side_and_no_others_may(path):
    target, options = net(1), {"optional": ("2.*", "?.num_batches_tracked", "head.*")}
    kept = target[2].bias.clone()
    head = {"head.weight": torch.ones(3), "head.1.bias": torch.ones(2)}
    source = {**other_state(**{"2_bias": None}), **head}
    del source["1.num_batches_tracked"]
    torch.save(source, path)
    assert load_weights(target, path, **options) == ["1.num_batches_tracked", "2.bias"]
    assert torch.equal(target[2].bias, kept)
    assert torch.equal(target[2].weight, net(0)[2].weight)  # what both have is loaded
    for changes, message in (
        ({"1_weight": None}, r"found 1 missing: '1\.weight', and 0 others: none"),
        ({"3_bias": torch.ones(1)}, r"0 missing: none, and 1 others: '3\.bias'"),
        ({"headless": torch.ones(1), "2_bias": None}, "0 missing: none, and 1 others: 'headless'"),
        ({"2_weight": torch.ones(2, 5)}, r"2\.weight: expected float64 \[2, 4\]"),
    ):
        torch.save({**other_state(**changes), **head}, path)
        refused(target, path, message, **options)


def test_one_pattern_is_no_list_of_letters(path):
    torch.save(other_state(**{"2_bias": None}), path)
    assert load_weights(net(1), path, optional="2.*") == ["2.bias"]
    torch.save(other_state(**{"0_bias": None}), path)
    refused(net(1), path, r"1 missing: '0\.bias'", optional="2.*")


def test_where_all_names_are_optional_one_must_be_there(path):
    torch.save({"9.weight": torch.ones(1)}, path)
    refused(net(1), path, "at least one of the names '0.weight'", optional="*")


def test_a_module_without_room_for_numbers_is_refused(path):
    torch.save(net(0).state_dict(), path)
    with pytest.raises(DataError, match=r"0\.weight: expected float64 \[4, 3\] on no device"):
        load_weights(net().to("meta"), path)
    lazy = nn.Sequential(nn.LazyLinear(4))
    torch.save(nn.Sequential(nn.Linear(3, 4)).state_dict(), path)
    with pytest.raises(DataError, match=r"0\.weight: expected float64 of a size that is not dec"):
        load_weights(lazy, path)
    assert lazy[0].has_uninitialized_params()


def test_a_module_that_refuses_by_code_of_its_own_is_as_it_was(path):
    class Stubborn(nn.Linear):
        def _load_from_state_dict(self, *args):
            super()._load_from_state_dict(*args)
            raise error

    torch.save(net(0).state_dict(), path)
    target = net(1)
    target[2] = Stubborn(4, 2)
    error = RuntimeError("not these")
    assert "not these" in refused(target, path, "weights that the module takes")
    error, before = KeyboardInterrupt(), state_of(target)
    with pytest.raises(KeyboardInterrupt):
        load_weights(target, path)
    assert same(state_of(target), before)


def test_what_a_module_keeps_beside_its_tensors_is_handed_to_it(path):
    class Counting(nn.Linear):
        seen = 0

        def get_extra_state(self):
            return {"seen": self.seen}

        def set_extra_state(self, state):
            self.seen = state["seen"]

    source, target = Counting(2, 1), Counting(2, 1)
    source.seen = 5
    torch.save(source.state_dict(), path)
    assert load_weights(target, path) == []
    assert target.seen == 5


def test_no_bomb_of_any_kind_goes_off(tmp_path, path):
    mark = tmp_path / "mark"
    bombs = weights_bombs(mark, state_of(net(0)))
    for name, (data, trusting) in bombs.items():
        path.write_bytes(data)
        assert blows_up(path, mark, trusting), f"{name} is no bomb"
        for strict in (True, False):
            message = refused(net(1), path, "expected weights that torch.save", strict=strict)
            # Nobody is told how to read it all the same.
            assert not re.search(r"weights_only|safe_globals|allow_pickle", message), name
        assert not mark.exists(), name


def test_no_bomb_goes_off_where_the_environment_asks_torch_to_trust(tmp_path, path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    mark = tmp_path / "mark"
    path.write_bytes(torch_file(by_exec(mark)))
    assert "asks for exec" in refused(net(1), path, "which is not executed")
    assert not mark.exists()


def test_files_of_something_else_are_refused(tmp_path, path):
    refused(net(1), tmp_path / "absent.pt", "no file that can be read .No such file")
    refused(net(1), tmp_path, "no file that can be read .Is a directory")
    whole = torch_file(net(0).state_dict())
    unreadable = "found (none, or damaged|a pickle that is damaged, or of something else)"
    named = argparse.Namespace(a=1)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights/data.pkl", bytes(10**7))
    compressed = path.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/constants.pkl", b"")
    script = path.read_bytes()
    for data, message in (
        (b"", unreadable),
        (b"PK\x03\x04", unreadable),
        (b"not weights at all\n" * 100, unreadable),
        (npz(x=torch.ones(2).numpy()), unreadable),
        (replaced(whole, "/version", b"\x1b[31m"), unreadable),
        (compressed, "parts are compressed"),
        (script, "a program of TorchScript"),
        (torch_file(net(0)), r"asks for torch\.nn\.modules\.\w+\.\w+, which is not executed"),
        (torch_file({"state_dict": {}, "args": named}), "asks for argparse.Namespace"),
        (torch_file(torch.ones(2)), "found Tensor"),
        (torch_file([torch.ones(2)]), "found list"),
        (torch_file(3), "found int"),
        (torch_file({1: torch.ones(2)}), "found dict with other keys"),
        (torch_file({}), "9 missing: .*and 0 others"),
        (torch_file({"\x1b[31m" + "long" * 10**5: torch.ones(2)}), "and 1 others"),
    ):
        path.write_bytes(data)
        found = refused(net(1), path, message)
        assert found.isprintable()
        assert len(found) < 1000


def test_no_damage_loads_other_weights_and_none_surfaces_as_another_error(path):
    source, draw = net(0), random.Random(3)
    whole = torch_file(source.state_dict())
    expected, outcomes = state_of(source), collections.Counter()
    for data in damaged(whole, 240, draw):
        path.write_bytes(data)
        target = net(1)
        before = state_of(target)
        try:
            load_weights(target, path)
        except DataError:
            outcomes["refused"] += 1
            assert same(state_of(target), before)
        else:  # padding between the entries may hold anything
            outcomes["loaded"] += 1
            assert same(state_of(target), expected)
    assert outcomes["refused"] > 120
    assert outcomes["loaded"] > 0


def test_one_changed_bit_in_a_tensor_is_found(path):
    source = net(0)
    whole = torch_file(source.state_dict())
    place = whole.index(struct.pack("<d", source[2].weight[1, 2].item()))
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    found = torch.load(path, weights_only=True)  # torch itself does not look
    assert not torch.equal(found["2.weight"], source[2].weight)
    refused(net(1), path, "checksum")


def test_damage_to_the_old_format_surfaces_as_no_other_error(path):
    whole, draw = torch_file(net(0).state_dict(), zipped=False), random.Random(5)
    refusals = 0
    for trial in range(80):
        data = bytearray(whole)
        if trial % 2:
            del data[draw.randrange(len(data)) :]
        else:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        try:
            load_weights(net(1), path)
        except DataError:
            refusals += 1
    assert refusals >= 40
