"""Short names of runs, no two alike."""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Sequence


def run_names(paths: Sequence[pathlib.Path]) -> list[str]:
    """Name each folder by as many of the last parts of its path as tell it from the others.

    A folder that is given twice gets a number.
    """
    parts = [path.resolve().parts for path in paths]
    names = ["/".join(one[-1:]) for one in parts]
    for depth in range(2, max(map(len, parts), default=0) + 1):
        count = Counter(names)
        names = [
            name if count[name] == 1 else "/".join(one[-depth:]).replace("//", "/")
            for name, one in zip(names, parts, strict=True)
        ]
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return numbered
