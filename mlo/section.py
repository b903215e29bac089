"""The base of all models of settings: strict about keys and numbers, lenient about text."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

NONE = "none"
"""How `None` is written on the command line and in TOML, which has no word for it."""


def _integer(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticKnownError("int_type")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


def _none(value: Any) -> Any:
    return None if isinstance(value, str) and value == NONE else value


_READERS = {"int": _integer, "float": _number, "nullable": _none}

# Where a schema holds others. Those of models are only referred to: each model adapts its own.
_PARTS = {"schema", "fields", "choices", "items_schema", "keys_schema", "values_schema", "steps"}
_PARTS |= {"lax_schema", "strict_schema", "json_schema", "python_schema"}


def _adapted(part: Any) -> Any:
    """Copy a schema so that its numbers refuse truth values, and its options read ``none``."""
    if isinstance(part, list | tuple):
        return type(part)(_adapted(item) for item in part)
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if not isinstance(kind, str):  # fields or choices by their names
        return {name: _adapted(item) for name, item in part.items()}
    if kind == "function-before" and part["function"]["function"] in _READERS.values():
        return part  # pydantic asks again for the schema of a model that is used in another one
    copy = {key: _adapted(item) if key in _PARTS else item for key, item in part.items()}
    if kind not in _READERS:
        return copy
    return core_schema.no_info_before_validator_function(_READERS[kind], copy)


class Section(BaseModel):
    """Settings that belong together; the models nested in a configuration derive from it.

    Text becomes what the field is, since the command line has nothing else. Beyond that:

    - unknown keys are errors, and nothing changes later;
    - a truth value is no number, so ``width = true`` is an error and not a width of 1 (words that
      are numbers, as in ``Literal[1, 2]``, are compared as Python does, where ``True == 1``);
    - numbers are finite, but for fields with ``Field(allow_inf_nan=True)``;
    - the word ``none`` is `None` wherever that is allowed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[BaseModel], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Adapt the numbers and options of this model; pydantic calls it for each subclass."""
        schema = handler(source)
        own: Any = handler.resolve_ref_schema(schema)
        own.update(_adapted(own))
        return schema
