"""What one stage of a recipe hands to the next: plain values and tensors, safe to save and load."""

from __future__ import annotations

import io
import pathlib
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mlo.errors import CarryError, DataError, listed, nearest
from mlo.files import write_bytes

_LEAVES = bool | int | float | str | None


class Carry(Mapping[str, Any]):
    """A read-only mapping of what earlier stages of a repetition have handed on.

    Values are tensors (kept detached), numbers, strings, `None`, and lists and string-keyed
    mappings of these, so that opening the file of a carry never executes code.

    Args:
        values: what is handed on.

    Raises:
        CarryError: a value is of another kind.
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._values: dict[str, Any] = _plain(values or {}, "")

    def __getitem__(self, key: str) -> Any:
        """The value of that name.

        Raises:
            CarryError: no earlier stage has handed it on.
        """
        if key not in self._values:
            raise CarryError(
                f"carry['{key}']: no earlier stage has handed that on (there is: "
                f"{listed(self._values)}){nearest(key, self._values)}; return it from the finish= "
                "of an earlier stage, or read it with carry.get"
            )
        return self._values[key]

    def get(self, key: str, default: Any = None) -> Any:
        """The value of that name, or the default where no stage has handed it on."""
        return self._values.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def and_then(self, values: Mapping[str, Any]) -> Carry:
        """This carry with more values; those of a name that exists take its place."""
        return Carry({**self._values, **values})

    def save(self, path: pathlib.Path) -> None:
        """Write the file in one step."""
        buffer = io.BytesIO()
        torch.save(self._values, buffer)
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: pathlib.Path) -> Carry:
        """Read a file of `save`; tensors come to the CPU, whatever device they were on.

        Raises:
            DataError: it is absent or damaged, or holds what a carry may not.
        """
        try:
            return cls(torch.load(path, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, CarryError) as error:
            reason = str(error).partition("\n")[0]
            raise DataError(
                f"carry: cannot read '{path}' ({type(error).__name__}: {reason}); it is damaged or "
                "no carry. Run the stage again that wrote it"
            ) from error


def _plain(value: Any, path: str) -> Any:
    """The value as what a file can hold safely: detached tensors, and plain containers.

    Raises:
        CarryError: naming the path of a value of another kind.
    """
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, _LEAVES):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, f"{path}['{key}']") for key, item in value.items()}
    kind = "a mapping with other keys" if isinstance(value, Mapping) else type(value).__name__
    raise CarryError(
        f"carry{path}: expected a tensor, a number, a string, None, or lists and string-keyed "
        f"mappings of these, found {kind}; hand on its state (such as state_dict()) instead"
    )
