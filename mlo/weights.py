"""Weights read from a file into a module: no file executes code, and all fits or nothing moves."""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mlo.errors import DataError, described
from mlo.files import check_records
from mlo.misfit import shown

_SHOWN = 5
"""How many of the parts that do not fit a message names."""


def load_weights(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    strict: bool = True,
    optional: str | Collection[str] = (),
) -> list[str]:
    """Load a file of ``torch.save(module.state_dict(), path)`` into a module.

    Also read is ``{"state_dict": ...}``, around which training programs put more. The file is
    opened with `weights_only`, so a pickle that asks for code is refused and not executed. Names,
    shapes and kinds of numbers are compared before anything is copied; floating numbers may have
    another precision. The checksums of the file are looked at, which torch does not do; files in
    the format that torch wrote before version 1.6 have none.

    Memory: the file's tensors on the CPU, and a copy of the module while it is filled.

    Args:
        module: takes the weights, on whatever device it is. The state that it keeps beside
            parameters and buffers (`set_extra_state`) cannot be compared.
        path: the file.
        strict: the names must be the same. Otherwise those that file and module share are loaded,
            of which there must be one at least.
        optional: patterns, such as ``"fc.*"``, of names that the file or the module alone may have
            although the others must be the same. What both have is loaded, and must fit.

    Returns:
        The names of the module that the file does not have; these parts stay as they are.

    Raises:
        DataError: the file is absent, damaged, asks for code, holds something else than weights,
            or does not fit the module, which is then as it was.
    """
    state = _named(_read(path), path)
    own = module.state_dict(keep_vars=True)
    patterns = [optional] if isinstance(optional, str) else optional
    missing = _check_names(own, state, path, patterns if strict else ["*"])
    _check_parts(own, state, path)
    _fill(module, state, path)
    return missing


def _read(path: str | os.PathLike[str]) -> Any:
    try:
        with open(path, "rb") as file:
            if file.read(4) == b"PK\x03\x04":
                _check_archive(file)
            file.seek(0)
            with warnings.catch_warnings():  # of a pickle of another protocol, which is an error
                warnings.simplefilter("ignore")
                return torch.load(file, map_location="cpu", weights_only=True)
    # Damage can surface as nearly every kind of error, from zipfile as from torch.
    except Exception as error:
        raise _refusal(
            path,
            "weights that torch.save(module.state_dict(), path) has written",
            _reason(error),
            "give the file of such a call",
        ) from error


def _check_archive(file: BinaryIO) -> None:
    with zipfile.ZipFile(file) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise zipfile.BadZipFile("parts are compressed, as torch.save does not do")
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise zipfile.BadZipFile("it is a program of TorchScript")
        check_records(archive)


def _reason(error: Exception) -> str:
    """What was found, in words that do not advise to read the file unsafely, as torch's do."""
    code = re.search(r"GLOBAL ([\w.]+)", str(error))
    if code:
        return f"a pickle that asks for {code[1]}, which is not executed"
    if isinstance(error, OSError):
        return f"no file that can be read ({error.strerror or error})"
    if isinstance(error, pickle.UnpicklingError):
        return "a pickle that is damaged, or of something else"
    # A file decides some of these words, and a terminal obeys what is not printable.
    return f"none, or damaged ones ({repr(described(error).partition(chr(10))[0][:200])[1:-1]})"


def _named(found: Any, path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The weights by their names, which may be wrapped once."""
    if isinstance(found, Mapping):
        inner = found.get("state_dict")
        state = inner if isinstance(inner, Mapping) else found
        if all(isinstance(name, str) for name in state):
            return state
    kind = f"{type(found).__name__}" + (" with other keys" if isinstance(found, Mapping) else "")
    raise _refusal(path, "weights by their names", kind, "save module.state_dict()")


def _check_names(
    own: Mapping[str, Any],
    state: Mapping[str, Any],
    path: str | os.PathLike[str],
    optional: Collection[str],
) -> list[str]:
    missing = [name for name in own if name not in state]
    unknown = [name for name in state if name not in own]
    lacking, others = _unmatched(missing, optional), _unmatched(unknown, optional)
    if lacking or others:
        raise _refusal(
            path,
            f"the names of the module ({len(own)})",
            f"{len(lacking)} missing: {_some(lacking)}, and {len(others)} others: {_some(others)}",
            "build the module that the weights are of, or load what fits by strict=False",
        )
    if len(missing) == len(own):
        raise _refusal(
            path,
            f"at least one of the names {_some(own)}",
            _some(unknown),
            "build the module that the weights are of",
        )
    return missing


def _unmatched(names: list[str], patterns: Collection[str]) -> list[str]:
    return [name for name in names if not any(fnmatchcase(name, each) for each in patterns)]


def _check_parts(
    own: Mapping[str, Any], state: Mapping[str, Any], path: str | os.PathLike[str]
) -> None:
    both = {name: (part, state[name]) for name, part in own.items() if name in state}
    misfits = {name: _misfit(*pair) for name, pair in both.items()}
    wrong = [f"{name}: {misfit}" for name, misfit in misfits.items() if misfit]
    if wrong:
        raise DataError(
            f"{os.fspath(path)!r}: {len(wrong)} of the weights do not fit the module: "
            f"{'; '.join(wrong[:_SHOWN])}{'; ...' if len(wrong) > _SHOWN else ''}. Build the "
            "module that the weights are of, on a device and with all its sizes"
        )


def _misfit(part: Any, given: Any) -> str:
    """What does not fit about a part of the module and what it would get; empty where all does."""
    if not isinstance(part, Tensor):
        return ""  # extra state, of which only the module knows what it is
    takes = not (part.is_meta or is_lazy(part))
    plain = isinstance(given, Tensor) and given.layout == torch.strided and not given.is_quantized
    if not (takes and plain and not given.is_meta and _alike(part, given)):
        return f"expected {_described(part)}, found {_described(given)}"
    if not torch.equal(given.to(part.dtype).isfinite(), given.isfinite()):
        return f"expected numbers in the range of {_described(part)}, found larger ones"
    return ""


def _alike(part: Tensor, given: Tensor) -> bool:
    floating = part.is_floating_point() and given.is_floating_point()
    return part.shape == given.shape and (floating or part.dtype == given.dtype)


def _described(part: Any) -> str:
    if not isinstance(part, Tensor):
        return type(part).__name__
    kind = str(part.dtype).removeprefix("torch.")
    if is_lazy(part):
        return f"{kind} of a size that is not decided yet"
    form = "" if part.layout == torch.strided else f" {str(part.layout).removeprefix('torch.')}"
    return f"{kind}{form} {list(part.shape)}" + (" on no device" if part.is_meta else "")


def _fill(module: nn.Module, state: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    places = [*module.parameters(), *module.buffers()]
    before = [place.detach().clone() for place in places]
    try:
        module.load_state_dict(state, strict=False)
    # A module may refuse by code of its own, after others have taken theirs.
    except BaseException as error:
        with torch.no_grad():
            for place, value in zip(places, before, strict=True):
                place.copy_(value)
        if not isinstance(error, Exception):
            raise
        raise _refusal(
            path, "weights that the module takes", described(error), "build the module they are of"
        ) from error


def _refusal(path: str | os.PathLike[str], expected: str, found: str, cure: str) -> DataError:
    return DataError(f"{os.fspath(path)!r}: expected {expected}, found {found}; {cure}")


def _some(names: Mapping[str, Any] | list[str]) -> str:
    first = ", ".join(shown(name) for name in list(names)[:_SHOWN]) or "none"
    return first + (", ..." if len(names) > _SHOWN else "")
