"""Kinds of settings that several recipes have: their values are checked where they are read."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from mlo.devices import find_device
from mlo.errors import DataError, DeviceError, listed, nearest
from mlo.hypergradients.registry import method_names
from problems.datasets import find_file, find_path


def _usable_device(name: str) -> str:
    try:
        return str(find_device(name)) if name != "cpu" else name
    except DeviceError as error:
        raise ValueError(str(error)) from error


def _known_method(name: str) -> str:
    known = method_names()
    if name not in known:
        raise ValueError(f"expected one of {listed(known)}, got '{name}'{nearest(name, known)}")
    return name


def _found(name: str) -> str:
    try:
        return find_file(name)
    except DataError as error:
        raise ValueError(str(error)) from error


def _absolute(name: str) -> str:
    try:
        return find_path(name)
    except DataError:
        return name  # what reads it says what to fetch and where to put it


DeviceName = Annotated[str, AfterValidator(_usable_device)]
"""A device that torch can use here."""

MethodName = Annotated[str, AfterValidator(_known_method)]
"""A registered hypergradient method."""

PathName = Annotated[str, AfterValidator(_absolute)]
"""A file or folder; its absolute path is kept where it is there."""

FileName = Annotated[str, AfterValidator(_found)]
"""A file that is there; its absolute path is kept."""
