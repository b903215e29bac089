"""Files that were cut off, had a bit flipped, or bytes lost and put in."""

from __future__ import annotations

import random
from collections.abc import Iterator


def damaged(whole: bytes, count: int, draw: random.Random) -> Iterator[bytes]:
    """So many damaged copies, of the three kinds in turn."""
    for trial in range(count):
        data = bytearray(whole)
        if trial % 3 == 0:
            del data[draw.randrange(len(data)) :]
        elif trial % 3 == 1:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        else:
            start = draw.randrange(len(data))
            data[start : start + 20] = draw.randbytes(draw.randrange(40))
        yield bytes(data)
