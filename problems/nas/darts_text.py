"""The text form of DARTS: a call in Python, parsed by its grammar and never evaluated."""

from __future__ import annotations

import ast
import warnings
from typing import Any, NoReturn

from mlo.errors import ConfigurationError, described

_ARGUMENTS = ("normal", "normal_concat", "reduce", "reduce_concat")
_LARGEST = 1000
_FORM = (
    "Genotype(normal=[('sep_conv_3x3', 1), ...], normal_concat=range(2, 6), reduce=[...], "
    "reduce_concat=[2, 3, 4, 5])"
)


def parse_darts(text: str) -> dict[str, Any]:
    """Return the values of a genotype of cells from ``Genotype(normal=[...], ...)``.

    Args:
        text: the call, with ``NAME =`` before it or not.

    Returns:
        Plain values as JSON has them; whether they fit is for the model to say.

    Raises:
        ConfigurationError: The text is not such a call.
    """
    given = {argument.arg: argument.value for argument in _call(text).keywords}
    for name in given:
        if name not in _ARGUMENTS:
            _refuse("Genotype(...)", "arguments normal, normal_concat, reduce, reduce_concat", name)
    for name in _ARGUMENTS:
        if name not in given:
            _refuse("Genotype(...)", f"an argument {name}", "none")
    return {
        "kind": "cell",
        **{
            cell: {
                "nodes": _nodes(cell, given[cell]),
                "concat": _states(f"{cell}_concat", given[f"{cell}_concat"]),
            }
            for cell in ("normal", "reduce")
        },
    }


def _call(text: str) -> ast.Call:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the grammar, about text that is refused anyway
            body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ConfigurationError(
            f"genotype: expected {_FORM} or JSON, found text that is neither "
            f"({described(error)}). "
            "Give one of them."
        ) from error
    match body:
        case [ast.Expr(value)] | [ast.Assign(targets=[ast.Name()], value=value)]:
            match value:
                case ast.Call(func=ast.Name(id="Genotype"), args=[], keywords=keywords) if all(
                    keyword.arg for keyword in keywords
                ):
                    return value
    _refuse("text", f"{_FORM} or JSON", text)


def _nodes(cell: str, value: ast.expr) -> list[list[dict[str, Any]]]:
    """Take the flat list of choices two by two."""
    choices = [_choice(cell, item) for item in _items(cell, value, "a list of choices")]
    if len(choices) % 2:
        _refuse(cell, "an even number of choices, two for each node", len(choices))
    return [choices[start : start + 2] for start in range(0, len(choices), 2)]


def _choice(cell: str, value: ast.expr) -> dict[str, Any]:
    match value:
        case ast.Tuple([ast.Constant(str(operation)), number]) | ast.List(
            [ast.Constant(str(operation)), number]
        ):
            return {"operation": operation, "input": _integer(cell, number)}
    _refuse(cell, "choices such as ('sep_conv_3x3', 1)", ast.unparse(value))


def _states(name: str, value: ast.expr) -> list[int]:
    match value:
        case ast.Call(func=ast.Name(id="range"), args=[first, stop], keywords=[]):
            return [*range(_integer(name, first), _integer(name, stop))]
    return [_integer(name, item) for item in _items(name, value, "range(2, 6) or a list of nodes")]


def _items(name: str, value: ast.expr, expected: str) -> list[ast.expr]:
    if isinstance(value, ast.List | ast.Tuple):
        return value.elts
    _refuse(name, expected, ast.unparse(value))


def _integer(name: str, value: ast.expr) -> int:
    match value:
        case ast.Constant(int(number)) if number <= _LARGEST:  # the model refuses True
            return number
    _refuse(name, f"numbers of states, from 0 to {_LARGEST}", ast.unparse(value))


def _refuse(where: str, expected: str, found: object) -> NoReturn:
    text = " ".join(str(found).split())
    short = text if len(text) <= 60 else f"{text[:55]} ..."
    raise ConfigurationError(
        f"genotype, {where}: expected {expected}, found {short or 'nothing'}. Correct the text "
        "of the genotype."
    )
