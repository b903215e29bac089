"""All that was looked for, library by library."""

from __future__ import annotations

from benchmarks.audit import claims_betty, claims_nested, claims_others
from benchmarks.audit.claims import Finding
from benchmarks.audit.environments import LIBRARIES


def findings() -> tuple[Finding, ...]:
    """All of them, in the order of the libraries."""
    every = (*claims_betty.FINDINGS, *claims_nested.FINDINGS, *claims_others.FINDINGS)
    order = list(LIBRARIES)
    return tuple(sorted(every, key=lambda finding: order.index(finding.library)))
