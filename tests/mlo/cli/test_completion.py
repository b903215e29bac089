"""Completion by the shell, as the scripts of click ask for it."""

from __future__ import annotations

import pytest

from ..offered import TINY, install
from .called import call, environment
from .measured import COUNTED, ENTRIES

LITERAL = TINY.replace(
    "class Config(RecipeConfig):\n",
    "from typing import Literal\n"
    "    from pydantic import BaseModel\n\n"
    "    class Inner(BaseModel):\n"
    "        width: int = 3\n"
    "        smooth: bool = False\n\n"
    "    class Config(RecipeConfig):\n"
    '        kind: Literal["flat", "fine", "steep"] = "flat"\n'
    "        inner: Inner = Inner()\n",
)


@pytest.fixture
def complete(tmp_path, monkeypatch):
    sites = (
        install(
            tmp_path, monkeypatch, "mlo_c_tiny", LITERAL, "[mlo.recipes]\ntiny=mlo_c_tiny:recipe"
        ),
        install(tmp_path, monkeypatch, "mlo_cli_counted", COUNTED, ENTRIES),
        install(tmp_path, monkeypatch, "mlo_c_bad", "1 / 0", "[mlo.recipes]\ntin=mlo_c_bad:recipe"),
    )

    def completed(words: str) -> list[str]:
        """What may stand in the place of the last word."""
        asked = environment(
            *sites,
            _MLO_COMPLETE="bash_complete",
            COMP_WORDS=words,
            COMP_CWORD=str(len(words.split(" ")) - 1),
        )
        done = call([], tmp_path, asked)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    return completed


COMPLETED = {
    "mlo r": ["plain,run", "plain,report"],
    "mlo run t": ["plain,tin", "plain,tiny"],
    "mlo graph ti": ["plain,tin", "plain,tiny"],
    "mlo check tiny --inner.s": ["plain,--inner.smooth"],
    "mlo run tiny --st": ["plain,--steps"],
    "mlo run tiny --kind f": ["plain,flat", "plain,fine"],
    "mlo run tiny --kind=s": ["plain,steep"],
    "mlo run tiny --inner.smooth ": ["plain,yes", "plain,no"],
    "mlo run tiny --threads ": ["plain,none"],
    "mlo run tiny --preset ": ["plain,fast"],
    "mlo run tiny --config ": ["file,"],
    "mlo run --resume ": ["dir,"],
    "mlo run --res": ["plain,--resume"],
    "mlo run tiny --res": [],
    "mlo report ": ["dir,"],
    "mlo graph tiny --format ": ["plain,text", "plain,mermaid", "plain,svg"],
    "mlo bench co": ["plain,counted"],
    "mlo bench counted --rep": ["plain,--repeats"],
    # A package that is damaged, or absent, completes to nothing and says nothing.
    "mlo run tin --st": [],
    "mlo run absent --st": [],
}


@pytest.mark.parametrize("words", COMPLETED)
def test_the_shell_completes_words(complete, words):
    assert complete(words) == COMPLETED[words]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_for_the_shells_are_printed(tmp_path, shell):
    done = call([], tmp_path, environment(_MLO_COMPLETE=f"{shell}_source"))
    assert done.returncode == 0
    assert f"_MLO_COMPLETE={shell}_complete" in done.stdout
