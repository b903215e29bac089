"""The standard list."""

from __future__ import annotations

from mlo.testing.forms.form import ClosedForm
from mlo.testing.forms.lfm_shaped import lfm_shaped
from mlo.testing.forms.quadratic import quadratic
from mlo.testing.forms.regression import logistic, ridge
from mlo.testing.forms.staged import chain, diamond
from mlo.testing.forms.trilevel import trilevel


def closed_forms() -> tuple[ClosedForm, ...]:
    """One of each kind, in float64 on the CPU: two levels, staged graphs, nested ones."""
    return (
        quadratic(),
        quadratic(condition=1e4),
        ridge(),
        ridge(per_coordinate=True),
        logistic(),
        lfm_shaped(),
        chain(),
        diamond(),
        quadratic(depth=3),
        trilevel(),
    )
