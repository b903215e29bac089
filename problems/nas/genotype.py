"""Genotypes: which operation and which inputs a discrete network has, as values in JSON.

The states of a cell are numbered: 0 and 1 are its inputs, the outputs of the two cells before it,
and node i is state 2 + i. A node is the sum of two operations, each on an earlier state.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mlo.configuration import Section, configure
from mlo.errors import ConfigurationError
from problems.nas.darts_text import parse_darts
from problems.nas.operations import OPERATIONS, unknown_operation

SKIP = "skip_connect"

LONGEST = 20_000
"""Characters that the text of a genotype may have."""


def _chosen(name: str) -> str:
    if name not in OPERATIONS:
        raise ValueError(unknown_operation(name))
    if name == "none":
        raise ValueError("expected an operation other than 'none', which no genotype chooses")
    return name


Operation = Annotated[str, AfterValidator(_chosen)]
"""The name of an operation that a genotype can choose."""


class _Written(Section):
    """What all genotypes have in common: they are made from and written as JSON."""

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Make a genotype from plain values, such as those of JSON.

        Raises:
            ConfigurationError: They do not fit; the message names cell, node and operation.
        """
        return configure(cls, values, title="genotype")

    def to_json(self) -> str:
        """Return the text that `read_genotype` reads."""
        return self.model_dump_json()


class Choice(Section):
    """An operation, and the number of the state that it is applied to."""

    operation: Operation
    input: int = Field(ge=0)


class Cell(Section):
    """One kind of cell.

    Attributes:
        nodes: the two choices of each node, on different states before it. Their order has no
            meaning and is kept as given.
        concat: the nodes whose channels, in this order, are the output; by their state numbers.
    """

    nodes: tuple[tuple[Choice, Choice], ...] = Field(min_length=1)
    concat: tuple[int, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _inputs_exist(self) -> Self:
        for node, pair in enumerate(self.nodes, start=2):
            for choice in pair:
                if choice.input >= node:
                    raise ValueError(
                        f"node {node}: expected inputs among the states 0 to {node - 1}, which "
                        f"are before it, found {choice.input}; name an earlier state"
                    )
            if pair[0].input == pair[1].input:
                raise ValueError(
                    f"node {node}: expected two different inputs, found state {pair[0].input} "
                    "twice; name another one for one of its operations"
                )
        return self

    @model_validator(mode="after")
    def _output_exists(self) -> Self:
        last = len(self.nodes) + 1
        if wrong := [state for state in self.concat if not 2 <= state <= last]:
            raise ValueError(
                f"concat: expected nodes among 2 to {last}, found {wrong[0]}; name only nodes "
                "that the cell has"
            )
        if len(set(self.concat)) < len(self.concat):
            raise ValueError(
                f"concat: expected each node at most once, found {[*self.concat]}; name it once"
            )
        return self


class Genotype(_Written):
    """A network of cells: the normal cell, and the one that halves the size."""

    kind: Literal["cell"] = "cell"
    normal: Cell
    reduce: Cell

    @property
    def skips(self) -> int:
        """How many operations of the normal cell are `skip_connect`."""
        return sum(choice.operation == SKIP for pair in self.normal.nodes for choice in pair)


class MacroGenotype(_Written):
    """A chain of layers: the operation of each."""

    kind: Literal["macro"] = "macro"
    layers: tuple[Operation, ...] = Field(min_length=1)

    @property
    def skips(self) -> int:
        """How many layers are `skip_connect`."""
        return sum(operation == SKIP for operation in self.layers)


AnyGenotype = Annotated[Genotype | MacroGenotype, Field(discriminator="kind")]
"""Either genotype, told apart by `kind`: the type of a field of settings."""


class _Document(Section):
    genotype: AnyGenotype


def read_genotype(text: str) -> Genotype | MacroGenotype:
    """Read a genotype from JSON, as `to_json` writes it, or from the text form of DARTS.

    The latter is ``Genotype(normal=[('sep_conv_3x3', 1), ...], normal_concat=range(2, 6), ...)``,
    with ``NAME =`` before it or not. It is parsed and never evaluated.

    Args:
        text: the whole text.

    Returns:
        The genotype.

    Raises:
        ConfigurationError: The text is neither form, or what it says does not fit.
    """
    if len(text) > LONGEST:
        raise ConfigurationError(
            f"genotype: expected at most {LONGEST} characters, found {len(text)}. Give the text "
            "of one genotype."
        )
    values = _parse_json(text) if text.lstrip().startswith("{") else parse_darts(text)
    return configure(_Document, {"genotype": values}, title="genotype").genotype


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"genotype: expected JSON, since the text begins with a brace, found: {error}. "
            "Give the text as it was written."
        ) from error


def to_darts(genotype: Genotype) -> str:
    """Write a genotype of cells in the text form of DARTS, which `read_genotype` reads."""
    if not isinstance(genotype, Genotype):
        raise ConfigurationError(
            f"genotype: expected one of cells, found {type(genotype).__name__}. The text form of "
            "DARTS has no other; write JSON."
        )
    parts = [
        f"{name}={[(c.operation, c.input) for pair in cell.nodes for c in pair]}, "
        f"{name}_concat={_concat(cell.concat)}"
        for name, cell in (("normal", genotype.normal), ("reduce", genotype.reduce))
    ]
    return f"Genotype({', '.join(parts)})"


def _concat(states: tuple[int, ...]) -> str:
    whole = range(states[0], states[-1] + 1)
    return str(whole) if (*whole,) == states else str([*states])
