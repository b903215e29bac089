"""A genotype by what a user types: a published name, a file, or the text itself."""

from __future__ import annotations

import re

from mlo.errors import ConfigurationError, DataError, listed, nearest
from problems.datasets import find_file
from problems.nas.genotype import LONGEST, Genotype, MacroGenotype, read_genotype
from problems.nas.published import PUBLISHED

_TEXT = re.compile(r"\s*(\w+\s*=\s*)?Genotype\s*\(|\s*\{")
"""How a genotype in either form begins."""


def genotype_of(text: str) -> Genotype | MacroGenotype:
    """Read a genotype.

    Args:
        text: a name in `PUBLISHED`, a file of JSON or of DARTS's text form, or such a text itself.

    Raises:
        ConfigurationError: it is none of these.
    """
    if text in PUBLISHED:
        return PUBLISHED[text]
    if _TEXT.match(text):
        return read_genotype(text)
    try:
        path = find_file(text)
    except DataError as error:
        raise ConfigurationError(
            f"genotype: expected a published name ({listed(PUBLISHED)}), a file, or a text that "
            f"begins with 'Genotype(' or a brace, got '{text}'{nearest(text, PUBLISHED)}; {error}"
        ) from error
    with open(path, encoding="utf-8", errors="replace") as file:
        return read_genotype(file.read(LONGEST + 1))
