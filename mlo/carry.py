"""What one stage of a recipe hands to the next: plain values and tensors, safe to save and load."""

from __future__ import annotations

import io
import pathlib
import types
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mlo.errors import CarryError, DataError, listed, nearest
from mlo.files import check_records, write_bytes

_LEAVES = (bool, int, float, str)


class Carry(Mapping[str, Any]):
    """A read-only mapping of what earlier stages of a repetition have handed on.

    Values are tensors, numbers, strings, `None`, and lists and string-keyed mappings of these, so
    that opening the file of a carry never executes code. Tensors are kept as detached copies on
    the CPU, and every look gives a copy: a stage gets the same whether the earlier ones ran
    before it or their files were read, and what it does to a value changes nothing that was
    handed on.

    Args:
        values: what is handed on.

    Raises:
        CarryError: a value is of another kind.
    """

    def __init__(self, values: Mapping[str, Any] = types.MappingProxyType({})) -> None:
        if not isinstance(values, Mapping):
            raise CarryError(
                "carry: expected {name: value}, such as the finish= of a stage returns, found "
                f"{type(values).__name__}; give what is handed on a name"
            )
        self._values: dict[str, Any] = _plain(values, "")

    def __getitem__(self, key: str) -> Any:
        """A copy of the value of that name.

        Raises:
            CarryError: no earlier stage has handed it on.
        """
        if key not in self._values:
            raise CarryError(
                f"carry['{key}']: no earlier stage has handed that on (there is: "
                f"{listed(self._values)}){nearest(key, self._values)}; return it from the finish= "
                "of an earlier stage, or read it with carry.get"
            )
        return _plain(self._values[key], "")

    def get(self, key: str, default: Any = None) -> Any:
        """A copy of the value of that name, or the default where no stage has handed it on."""
        if key not in self:
            return default
        return self[key]

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def and_then(self, values: Mapping[str, Any]) -> Carry:
        """This carry with more values; those of a name that exists take its place.

        Raises:
            CarryError: a value, or `values` itself, is of another kind.
        """
        more = Carry(values)
        more._values = {**self._values, **more._values}
        return more

    def plain(self) -> dict[str, Any]:
        """A copy of all values."""
        copy: dict[str, Any] = _plain(self._values, "")
        return copy

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
            with zipfile.ZipFile(path) as archive:
                check_records(archive)
            return cls(torch.load(path, map_location="cpu", weights_only=True))
        # Damage can surface as nearly every kind of error, from zipfile as from torch.
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise DataError(
                f"carry: cannot read '{path}' ({type(error).__name__}: {reason}); it is damaged or "
                "no carry. Run the stage again that wrote it"
            ) from error


def _plain(value: Any, path: str) -> Any:
    """A copy of the value as what a file can hold safely: tensors, and plain containers.

    Raises:
        CarryError: naming the path of a value of another kind.
    """
    if isinstance(value, Tensor) and not value.is_meta:
        return value.detach().as_subclass(Tensor).to("cpu", copy=True)
    if value is None or type(value) in _LEAVES:
        return value
    for kind in _LEAVES:  # a number of NumPy or an enumeration can be one of them as well
        if isinstance(value, kind):
            return str.__str__(value) if kind is str else kind(value)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {str.__str__(key): _plain(item, f"{path}['{key}']") for key, item in value.items()}
    found = "a mapping with other keys" if isinstance(value, Mapping) else type(value).__name__
    raise CarryError(
        f"carry{path}: expected a tensor, a number, a string, None, or lists and string-keyed "
        f"mappings of these, found {found}; hand on its state (such as state_dict()) instead"
    )
