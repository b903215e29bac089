"""Batches as plain values: what goes into a file comes out, and no class is looked up there."""

from __future__ import annotations

import collections
import dataclasses
import io
import typing

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from mlo.batch_trees import packed, unpacked
from mlo.errors import CheckpointError
from mlo.plain import check_plain, same


class Pair(typing.NamedTuple):
    x: object
    y: object


class Other(typing.NamedTuple):
    x: object
    y: object


class Graph:
    """A batch of a class of the user's, with a size beside its tensors."""

    def __init__(self, nodes, count, style):
        self.nodes, self.count, self.style = nodes, count, style


pytree.register_pytree_node(
    Graph,
    lambda g: ([g.nodes], (g.count, g.style)),
    lambda parts, context: Graph(parts[0], *context),
    serialized_type_name="tests.Graph",
)


@dataclasses.dataclass
class Item:
    x: torch.Tensor
    tag: str


pytree.register_dataclass(Item)


def filed(plain):
    """The same after a file of it was read back without executing code."""
    check_plain(plain, "batch")
    buffer = io.BytesIO()
    torch.save(plain, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def back(batch, like):
    return unpacked(filed(packed(batch, "train")), like, "train")


def identical(a, b):
    """Bit for bit, and of the same types all the way."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        return (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return [*a] == [*b] and all(identical(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple | collections.deque):
        return len(a) == len(b) and all(map(identical, a, b))
    if isinstance(a, Graph | Item):
        return identical(vars(a), vars(b))
    return same(*(t.resolve_conj() if isinstance(t, torch.Tensor) else t for t in (a, b)))


def dtypes():
    for name in ["bool", "int8", "int64", "uint16", "uint32", "uint64", "float16", "complex64"]:
        yield np.arange(6).reshape(2, 3).astype(name)
    yield np.asfortranarray(np.arange(6.0).reshape(2, 3))[::-1]
    yield np.array(3.5)
    yield np.zeros((0, 4))
    yield np.broadcast_to(np.arange(2.0), (3, 2))  # not writeable
    yield from (np.float64(0.1), np.int32(7), np.bool_(True))


def tensors():
    eye = torch.eye(3)
    yield from (eye, eye[:, 1], eye.to(torch.bfloat16), torch.tensor(2), torch.zeros(0, 2))
    yield from (torch.tensor([float("nan"), -0.0, float("inf")]), eye > 0)
    yield from (eye.to_sparse(), torch.view_as_complex(torch.ones(2, 2)).conj())
    yield torch.randn(5, dtype=torch.float32)[::2]


PLAIN = {
    "numbers and words": [True, 3, -0.0, float("inf"), "a", "", None, torch.float32],
    "tensors": [*tensors()],
    "arrays": [*dtypes()],
    "containers": {
        "size": torch.ones(2, 3).shape,
        "views": [torch.ones(1), (torch.zeros(1), {"deep": [()], 3: {}})],
        None: [],
    },
    "a dictionary like those of the file": {"kind": "node", "parts": [1], "keys": 2},
}


@pytest.mark.parametrize("batch", PLAIN)
def test_a_batch_of_pythons_own_containers_needs_no_other(batch):
    given = PLAIN[batch]
    assert identical(back(given, None), given)


counted = collections.defaultdict(list, {"a": [torch.ones(2)], "b": []})

NODES = {
    "a named tuple": (Pair(torch.ones(2), 1), Pair(torch.zeros(3), 2)),
    "a named tuple in a dictionary": ({"p": [Pair(1, Pair(2, "x"))]}, {"p": [Pair(3, Pair(4, 5))]}),
    "more nodes than the other batch": ([Pair(1, 2), Pair(3, 4), Pair(5, 6)], [Pair(0, 0)]),
    "an ordered dictionary of other keys": (
        collections.OrderedDict(b=1, a=Pair(1, 2)),
        collections.OrderedDict(z=Pair(0, 0)),
    ),
    "a dictionary with a default": (counted, collections.defaultdict(list)),
    "a deque": (collections.deque([1, 2], maxlen=3), collections.deque()),
    "what torch returns": (torch.ones(2, 2).max(0), torch.zeros(1, 1).max(0)),
    "a class of the user's": (Graph(torch.ones(3), 3, Pair), Graph(torch.ones(2), 2, Pair)),
    "a data class": (Item(torch.ones(3), "a"), Item(torch.ones(2), "b")),
}


@pytest.mark.parametrize("batch", NODES)
def test_a_node_is_made_by_that_of_another_batch_with_what_is_its_own(batch):
    given, like = NODES[batch]
    found = back(given, like)
    assert identical(found, given)
    if isinstance(given, collections.defaultdict):
        assert found["new"] == []
    if isinstance(given, collections.deque):
        assert found.maxlen == 3


UNLIKE = {
    "another named tuple": (Pair(1, 2), Other(1, 2), r"NamedTuple|test_batch_trees\.Pair"),
    "a tuple": (Pair(1, 2), (1, 2), "have a tuple"),
    "nothing there": ({"a": Pair(1, 2)}, {"b": Pair(1, 2)}, "have nothing"),
    "an empty list": ([Pair(1, 2)], [], "have nothing"),
    "a node elsewhere": ([1, Pair(1, 2)], [Pair(1, 2), 1], "have a int"),
    "another class in its context": (Graph(1, 1, Pair), Graph(1, 1, Other), r"\.Other"),
}


@pytest.mark.parametrize("case", UNLIKE)
def test_a_node_that_the_batches_do_not_have_any_more_is_named(case):
    given, like, found = UNLIKE[case]
    with pytest.raises(CheckpointError, match=found) as raised:
        back(given, like)
    assert "data stream 'train'" in str(raised.value)


class Image(torch.Tensor):
    pass


class Loud(float):
    pass


REFUSED = {
    "an object": (object(), "object"),
    "bytes": (b"x", "bytes"),
    "a set": ({1}, "set"),
    "a tensor of a class of its own": (torch.ones(2).as_subclass(Image), "Image"),
    "a number of a class of its own": ([Loud(1)], "Loud"),
    "a complex number": ({"a": 1j}, "complex"),
    "words of NumPy": (np.array(["a"]), "ndarray of dtype <U1"),
    "a word of NumPy": (np.str_("a"), "str_ of dtype <U1"),
    "objects of NumPy": (np.array([None]), "ndarray of dtype object"),
    "an array that hides some": (np.ma.masked_array([1.0], [True]), "MaskedArray"),
    "a key": ({(1, 2): 3}, r"key \(1, 2\) of type tuple"),
    "a node that remembers an object": (
        Graph(1, 2, object()),
        "Graph with a object in its context",
    ),
}


@pytest.mark.parametrize("batch", REFUSED)
def test_what_no_file_can_hold_is_named_with_its_stream(batch):
    given, what = REFUSED[batch]
    with pytest.raises(CheckpointError, match=rf"'train': a batch holds a .*{what}"):
        packed({"deep": [given]}, "train")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_a_nest_of_tensors_is_named():
    nest = torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])
    with pytest.raises(CheckpointError, match="'train': a batch holds a Tensor"):
        packed(nest, "train")


def test_a_part_of_an_unknown_kind_is_named():
    with pytest.raises(CheckpointError, match=r"'train'.*kind 'sett'.*damaged"):
        unpacked({"kind": "list", "parts": [{"kind": "sett"}]}, None, "train")


def test_tensors_and_arrays_are_not_copied_and_lose_their_graph_only():
    w = torch.ones(3, requires_grad=True)
    array = np.ones(3)
    plain = packed({"w": w, "twice": 2 * w, "array": array}, "train")
    first, second, third = plain["parts"]
    assert first.data_ptr() == w.data_ptr()
    assert not first.requires_grad
    assert second.grad_fn is None
    assert w.requires_grad
    assert third["values"].data_ptr() == array.ctypes.data


def test_a_conjugate_view_is_written_out():
    given = torch.view_as_complex(torch.ones(2, 2)).conj()
    assert not packed(given, "train").is_conj()
    assert torch.equal(packed(given, "train"), given)


def test_a_tensor_stays_on_its_device():
    assert packed([torch.ones(2, device="meta")], "train")["parts"][0].device.type == "meta"
    like = [torch.ones(2)]
    assert unpacked(packed([torch.ones(2, device="meta")], "t"), like, "t")[0].is_meta


def test_a_file_names_no_class():
    buffer = io.BytesIO()
    torch.save(packed([given for given, _ in NODES.values()], "train"), buffer)
    names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(buffer.getvalue()))
    assert names == []
