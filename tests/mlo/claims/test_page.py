"""docs/proven.md says what these tests have just measured."""

from __future__ import annotations

import os

import pytest

from .claims import ALL
from .page import GROUPS, PATH, page


def test_the_page_says_what_is_measured():
    made = page()
    if os.environ.get("MLO_WRITE_DOCS"):
        PATH.write_text(made, encoding="utf-8")
    found = PATH.read_text(encoding="utf-8") if PATH.exists() else ""
    if made != found:
        lines = [line for line in made.splitlines() if line not in found.splitlines()]
        pytest.fail(
            "docs/proven.md is out of date; MLO_WRITE_DOCS=1 pytest tests/mlo/claims/test_page.py "
            "writes it anew. Lines that it should have:\n" + "\n".join(lines)
        )


def test_every_claim_has_a_column():
    assert sorted(label for group in GROUPS for label in group) == sorted(ALL)
