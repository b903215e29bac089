"""What a run was made with: versions of the software, and the machine."""

from __future__ import annotations

import os
import platform
from typing import Any


def environment() -> dict[str, Any]:
    """Versions and devices, as plain values."""
    import numpy
    import torch

    import mlo

    cuda = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        "mlo-engine": mlo.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": ["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in cuda)],
    }
