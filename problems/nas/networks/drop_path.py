"""Drop path: now and then an example does without an operation."""

from __future__ import annotations

import torch
from torch import Tensor

from mlo.errors import ConfigurationError


def check_drop_path(probability: float) -> None:
    """Refuse a probability outside [0, 1), by a ConfigurationError."""
    if not 0.0 <= probability < 1.0:
        raise ConfigurationError(
            f"drop_path: expected a probability in [0, 1), found {probability}. At 1 nothing is "
            "left."
        )


def drop_path(x: Tensor, probability: float) -> Tensor:
    """Return x_i m_i / (1 − p), m_i ~ Bernoulli(1 − p), one draw for each example i.

    Its expectation is x. The draws are from torch's generator of the device of x.

    Source: G. Larsson et al., FractalNet, 2017, Section 3, scaled as in the code of NASNet and
    DARTS.

    Args:
        x: what an operation gives, [n, C, ...].
        probability: p in [0, 1); nothing is drawn at 0.
    """
    if probability == 0.0:
        return x
    keep = 1.0 - probability
    shape = (x.shape[0], *(1,) * (x.dim() - 1))
    mask = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(keep)
    return x * (mask / keep)
