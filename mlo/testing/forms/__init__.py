"""Programs that carry their own answer: closed formulas for their total gradients."""

from mlo.testing.forms.form import ClosedForm, Level
from mlo.testing.forms.lfm_shaped import lfm_shaped
from mlo.testing.forms.quadratic import quadratic
from mlo.testing.forms.regression import logistic, ridge
from mlo.testing.forms.staged import chain, diamond, saddle
from mlo.testing.forms.standard import closed_forms
from mlo.testing.forms.trilevel import trilevel

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
