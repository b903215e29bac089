"""Files that execute code where a pickle is trusted: each makes a file as a mark."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import pathlib
import pickle
import zipfile
from collections.abc import Callable

import numpy as np
import torch


class Call:
    """Unpickles into a call."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable, tuple]:
        return self.call


def by_system(mark: pathlib.Path) -> Call:
    return Call(os.system, f"touch '{mark}'")


def by_exec(mark: pathlib.Path) -> Call:
    return Call(builtins.exec, f"open({str(mark)!r}, 'w').close()")


def by_path(mark: pathlib.Path) -> Call:
    return Call(pathlib.Path.touch, mark)


def torch_file(content: object, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def replaced(data: bytes, ending: str, content: bytes) -> bytes:
    """A zip file with another content of one entry, and checksums that fit."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        assert sum(name.endswith(ending) for name in old.namelist()) == 1
        for name in old.namelist():
            new.writestr(name, content if name.endswith(ending) else old.read(name))
    return buffer.getvalue()


def npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def objects(bomb: Call) -> np.ndarray:
    array = np.empty(1, dtype=object)
    array[0] = bomb
    return array


def trusting_pickle(path: pathlib.Path) -> None:
    with path.open("rb") as file:
        pickle.load(file)


def trusting_torch(path: pathlib.Path) -> None:
    torch.load(path, weights_only=False)


def trusting_numpy(path: pathlib.Path) -> None:
    found = np.load(path, allow_pickle=True)
    if isinstance(found, np.lib.npyio.NpzFile):
        with found:
            for name in found.files:
                found[name]


def blows_up(path: pathlib.Path, mark: pathlib.Path, trusting: Callable) -> bool:
    """Whether a reader that trusts the file makes the mark, which is taken away again."""
    with contextlib.suppress(Exception):  # what it makes of the file then is all the same
        trusting(path)
    made = mark.exists()
    mark.unlink(missing_ok=True)
    return made


def weights_bombs(mark: pathlib.Path, state: dict) -> dict[str, tuple[bytes, Callable]]:
    """Name -> a file in the place of weights, and a reader that would run it."""
    whole = torch_file(state)
    return {
        "os.system": (torch_file({**state, "bomb": by_system(mark)}), trusting_torch),
        "exec": (torch_file({**state, "bomb": by_exec(mark)}), trusting_torch),
        "wrapped": (torch_file({"state_dict": state, "x": by_path(mark)}), trusting_torch),
        "old format": (torch_file({"bomb": by_system(mark)}, zipped=False), trusting_torch),
        "old format, exec": (torch_file(by_exec(mark), zipped=False), trusting_torch),
        "data.pkl replaced": (
            replaced(whole, "/data.pkl", pickle.dumps(by_system(mark), 2)),
            trusting_torch,
        ),
        "raw pickle": (pickle.dumps(by_exec(mark)), trusting_pickle),
        "raw pickle, protocol 0": (pickle.dumps(by_system(mark), 0), trusting_pickle),
        "arrays": (npz(x=objects(by_exec(mark))), trusting_numpy),
    }


def arrays_bombs(mark: pathlib.Path, x: np.ndarray, y: np.ndarray) -> dict[str, tuple]:
    """Name -> a file in the place of arrays, and a reader that would run it."""
    return {
        "x of objects": (npz(x=objects(by_system(mark)), y=y), trusting_numpy),
        "y of objects": (npz(x=x, y=objects(by_exec(mark))), trusting_numpy),
        "x.npy replaced": (
            replaced(npz(x=x, y=y), "x.npy", npy(objects(by_path(mark)))),
            trusting_numpy,
        ),
        "x a raw pickle": (
            replaced(npz(x=x, y=y), "x.npy", pickle.dumps(by_exec(mark))),
            lambda path: pickle.loads(zipfile.ZipFile(path).read("x.npy")),
        ),
        "an array alone": (npy(objects(by_system(mark))), trusting_numpy),
        "raw pickle": (pickle.dumps(by_system(mark)), trusting_numpy),
        "weights": (torch_file({"x": by_exec(mark)}), trusting_torch),
    }
