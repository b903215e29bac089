"""Programs that carry their own answer: closed formulas for their total gradients."""

from mlo.testing.closed_forms.form import ClosedForm, Level
from mlo.testing.closed_forms.lfm_shaped import lfm_shaped
from mlo.testing.closed_forms.quadratic import quadratic
from mlo.testing.closed_forms.regression import logistic, ridge
from mlo.testing.closed_forms.staged import chain, diamond, saddle
from mlo.testing.closed_forms.standard import closed_forms
from mlo.testing.closed_forms.trilevel import trilevel

__all__ = [
    "ClosedForm",
    "Level",
    "chain",
    "closed_forms",
    "diamond",
    "lfm_shaped",
    "logistic",
    "quadratic",
    "ridge",
    "saddle",
    "trilevel",
]
