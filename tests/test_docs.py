"""Every Python block of the documents runs, one namespace a document, and prints what it says."""

from __future__ import annotations

import contextlib
import io
import pathlib
import re

import pytest
import torch

from mlo.hypergradients import registry

ROOT = pathlib.Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("problems/*/README.md")]
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")


@pytest.fixture(autouse=True)
def _as_for_a_reader(monkeypatch):
    """Single precision, and a registry that forgets what a document registers."""
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(before)


def relative(document):
    return str(document.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_python_blocks_run_and_print_what_follows_them(document):
    namespace = {"__name__": "document"}
    text = document.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        code, expected = block.groups()
        line = text[: block.start()].count("\n") + 1
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            # Line numbers of a failure are those of the document.
            source = "\n" * line + code
            exec(compile(source, relative(document), "exec", dont_inherit=True), namespace)
        if expected is not None:
            assert printed.getvalue().rstrip() == expected.rstrip()


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_links_lead_to_files(document):
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


def test_there_are_blocks_to_run():
    assert len(DOCUMENTS) >= 5
    assert sum(len(BLOCK.findall(d.read_text(encoding="utf-8"))) for d in DOCUMENTS) >= 10
