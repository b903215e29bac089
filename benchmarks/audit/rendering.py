"""The page `docs/audit.md`: its generated parts, between two comments each, from the results."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.audit.cases import words
from benchmarks.audit.claims import Rows
from benchmarks.audit.environments import LIBRARIES
from benchmarks.audit.findings import findings
from benchmarks.audit.problems import problems
from benchmarks.audit.reference import solution

Plain = dict[str, Any]

BLOCK = "<!-- {name}: generated -->\n{text}\n<!-- end -->"


def page(template: str, results: Plain) -> str:
    """The page with every generated part made anew.

    Raises:
        ValueError: a part is not in the page.
    """
    for name, text in parts(results).items():
        found = re.compile(rf"<!-- {name}: generated -->\n.*?<!-- end -->", re.DOTALL)
        if not found.search(template):
            raise ValueError(f"docs/audit.md has no part '{name}'")
        template = found.sub(_constant(BLOCK.format(name=name, text=text)), template)
    return template


def _constant(text: str) -> Callable[[re.Match[str]], str]:
    """A replacement in which backslashes mean themselves."""
    return lambda _: text


def parts(results: Plain) -> dict[str, str]:
    """Name -> Markdown."""
    rows = results["rows"]
    inside = [row for row in rows if row["problem"] == "quadratic"]
    special = [row for row in rows if _is_special(row)]
    return {
        "findings": _findings(Rows(rows)),
        "quadratic": _errors(inside, named=False),
        "variants": _errors(special, named=True),
        "nested": _values([row for row in rows if _is_nested(row)]),
        "libraries": _libraries(results["libraries"]),
    }


def _is_nested(row: Plain) -> bool:
    return problems()[row["problem"]]["kind"] in ("three levels", "trained", "curved")


def _is_special(row: Plain) -> bool:
    return row["problem"] not in ("quadratic", "bookkeeping") and not _is_nested(row)


def _findings(rows: Rows) -> str:
    lines = []
    for finding in findings():
        measured, verdict = finding.verdict(rows)
        lines.append((finding.library, finding.claim, measured, f"**{verdict}**"))
    return table(("library", "looked for", "measured", "verdict"), lines)


def _errors(rows: Sequence[Plain], named: bool) -> str:
    lines = []
    for row in rows:
        problem = (row["problem"],) if named else ()
        gaps = tuple(_number(row.get(key)) for key in ("off_solution", "off_algorithm"))
        lines.append((row["library"], *problem, _asked(row), *gaps, _work(row), _note(row)))
    problem = ("problem",) if named else ()
    heads = ("off the solution", "off its algorithm", "gradients", "says")
    return table(("library", *problem, "asked for", *heads), lines)


def _values(rows: Sequence[Plain]) -> str:
    lines = []
    for row in rows:
        exact = solution(problems()[row["problem"]])
        found = [float(value) for value in row.get("hypergradient", [])]
        cells = (row["library"], row["problem"], _asked(row), _numbers(found), _numbers(exact))
        lines.append((*cells, _note(row)))
    return table(("library", "problem", "asked for", "found", "exact", "says"), lines)


def _libraries(libraries: Plain) -> str:
    lines = []
    for name in LIBRARIES:
        about = libraries.get(name, {})
        versions = ", ".join(f"{key} {value}" for key, value in about.get("versions", {}).items())
        told = [f"`{asked}`: {answer}" for asked, answer in about.get("attempts", {}).items()]
        if "error" in about:
            told.insert(0, about["error"]["message"])
        installs = " then ".join(f"`pip install {call}`" for call in about.get("installs", []))
        lines.append((name, versions, installs or "-", "; ".join(told) or "-"))
    return table(("library", "versions", "installed by", "otherwise"), lines)


def _asked(row: Plain) -> str:
    return f"`{row['method']}({words(row['settings'])})`"


def _work(row: Plain) -> str:
    """Products with the Hessian's matrix, two for a gradient."""
    costs = row.get("costs")
    return "-" if costs is None else f"{costs['products'] / 2:g}"


def _note(row: Plain) -> str:
    """The exception, a failed outcome, parameters that have moved, or nothing."""
    if "error" in row:
        return f"`{row['error']['type']}`: {row['error']['message']}"
    named = [name for name in row.get("outcomes", []) if name not in ("CONVERGED", "EXPLICIT")]
    moved = float(row.get("moved", 0.0))
    told = [f"`{name}`" for name in named]
    if not moved < 1e-6:
        told.append("the lower parameters have become NaN")
    return ", ".join(told)


def _number(value: Any) -> str:
    return "-" if value is None else f"{float(value):.1e}"


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.6f}" for value in values) or "-"


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    rule = ["---"] * len(heads)
    return "\n".join(f"| {' | '.join(_cell(c) for c in line)} |" for line in (heads, rule, *lines))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
