"""`mlo check`: what it prints, and which code it ends with."""

from __future__ import annotations

import io
import re
import sys

import pytest

from mlo.cli import main

from ..offered import install
from .called import WIDTH, joined, too_long

CHECKED = """
    import torch

    import mlo
    from mlo.hypergradients.registry import make_method
    from mlo.recipe import Recipe, RecipeConfig, Setup, Stage

    class Config(RecipeConfig):
        hypergradient: str = "dense"
        detach: bool = False
        noise: bool = False
        solvable: bool = True
        alone: bool = False

    def lowest(z, y, x):
        z, y, x = z["w"], y["w"], x["w"]
        return z.square().sum() / 2 + 0.1 * (z**4).sum() - (z * (2 * y + x)).sum()

    def linear(z, y, x):
        return (z["w"] * (y["w"] + x["w"])).sum()

    def middle(y, x, z):
        return (y["w"] - x["w"]).square().sum() / 2 + z["w"].square().sum() / 2

    draw = torch.Generator()

    class Checked(Recipe):
        name, summary, config = "checked", "Three levels.", Config

        def stages(self, config):
            return [Stage("first", 3, self.build), Stage("second", 3, self.second)]

        def second(self, config, seed, carry):
            return self.build(config, seed + 5, carry)

        def build(self, config, seed, carry):
            def top(y, z):
                value = (y["w"] - 1).square().sum() + (z["w"] - seed).square().sum()
                if config.noise:
                    value = value + torch.randn((), generator=draw)
                return value + (z["w"].detach() * y["w"]).sum() if config.detach else value

            losses = {"z": lowest if config.solvable else linear, "y": middle, "x": top}
            if config.alone:
                losses = {"x": lambda x: x["w"].square().sum()}
            return Setup(mlo.Engine([
                mlo.Problem(name, params={"w": torch.tensor([0.3, -0.2]) + seed}, loss=loss,
                    optimizer=lambda params: torch.optim.SGD(params, 0.1),
                    hypergradient=make_method(config.hypergradient))
                for name, loss in losses.items()]))

    recipe = Checked()
"""


@pytest.fixture
def checked(tmp_path, monkeypatch):
    entries = "[mlo.recipes]\nchecked=mlo_cli_checked:recipe"
    install(tmp_path, monkeypatch, "mlo_cli_checked", CHECKED, entries)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    return tmp_path


def check(capsys, options: str = "") -> tuple[int, str, str]:
    code = main(["check", "checked", *options.split()])
    printed = capsys.readouterr()
    assert too_long(printed.out) == []
    return code, printed.out, joined(printed.err)


def test_check_prints_a_table_for_every_total_gradient(checked, capsys):
    code, out, error = check(capsys)
    assert (code, error) == (0, "")
    heads = [line for line in out.splitlines() if not line.startswith(" ")]
    assert heads == [
        "y: total gradient against solution, 2 directions",
        "x: total gradient against solution, 2 directions",
    ]
    assert "nested=exact" in out
    assert list(checked.glob("runs*")) == []


FOUND = {
    "--detach yes": "wrong loss: problem 'x'",
    "--noise yes": "stochastic loss: problem 'x'",
    "--solvable no": "problem 'z': could not be solved",
    "--hypergradient neumann": "wrong method: problem '",
}


@pytest.mark.parametrize("options", FOUND)
def test_what_a_check_finds_is_printed_and_the_code_says_that_it_failed(checked, capsys, options):
    code, out, error = check(capsys, options)
    assert code == 1
    assert FOUND[options] in joined(out)
    assert re.fullmatch(r"mlo: [12] of the checks of checked failed", error)


def test_a_check_that_fails_does_not_hide_those_that_pass(checked, capsys):
    code, out, error = check(capsys, "--detach yes")
    assert code == 1
    assert out.startswith("y: total gradient against solution")
    assert "1 of the checks" in error


def test_a_bias_or_a_tolerance_that_is_asked_for_is_allowed(checked, capsys):
    assert check(capsys, "--hypergradient neumann")[0] == 1
    code, out, _ = check(capsys, "--hypergradient neumann --bias 5")
    assert code == 0
    assert "z by Neumann" in out
    assert check(capsys, "--hypergradient neumann --tolerance 5")[0] == 0


def test_the_bias_does_not_loosen_the_tolerance(checked, capsys):
    code, out, _ = check(capsys, "--detach yes --bias 5")
    assert code == 1
    assert "wrong loss" in out


def test_against_chooses_the_reference(checked, capsys):
    assert check(capsys, "--against solution")[0] == 0
    code, out, error = check(capsys, "--against moves")
    assert (code, out) == (2, "")
    assert "against='moves'" in error
    words = "check lfm-reweighting --width 2 --features 4 --against moves"
    assert main(words.split()) == 0
    assert capsys.readouterr().out.startswith("validator: total gradient against moves")


def test_after_makes_so_many_ticks_first_and_the_seed_is_the_first(checked, capsys):
    texts = [check(capsys, o)[1] for o in ("", "--after 0", "--after 2", "--first-seed 1")]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


def test_where_nothing_is_to_be_checked_it_says_so(checked, capsys):
    code, out, error = check(capsys, "--alone yes")
    assert code == 0
    assert "nothing" in joined(out + error)


WRONG_CHECKS = {
    "--after -1": ("--after", "-1"),
    "--after 1.5": ("--after", "'1.5'"),
    "--tolerance x": ("--tolerance", "'x'"),
    "--tolerance -1": ("--tolerance", "-1"),
    "--tolerance nan": ("--tolerance", "nan"),
    "--bias x": ("--bias", "'x'"),
    "--bias -0.1": ("--bias", "-0.1"),
    "--against move": ("--against", "'moves', 'solution'"),
    "--agianst moves": ("'--agianst'", "did you mean '--against'"),
    "--hypergradient dens": ("'dens'", "did you mean 'dense'"),
    "--after": ("--after", "requires an argument"),
    "--after nan": ("--after", "'nan'"),
    "--bias nan": ("--bias", "nan"),
    "--stage third": ("stage:", "'first', 'second'"),
}


@pytest.mark.parametrize("options", WRONG_CHECKS)
def test_a_wrong_option_of_a_check_is_named_and_nothing_is_checked(checked, capsys, options):
    code, out, error = check(capsys, options)
    assert (code, out) == (2, "")
    assert all(text in error for text in WRONG_CHECKS[options])


def test_the_stage_that_is_asked_for_is_checked(checked, capsys):
    texts = [check(capsys, o)[1] for o in ("", "--stage first", "--stage second")]
    assert texts[0] == texts[1] != texts[2]
    assert check(capsys, "--first-seed 5")[1] == texts[2]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_check_prints_where_there_is_no_unicode(checked, monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["check", "checked"]) == 0
    stream.flush()
    assert b"total gradient" in stream.buffer.getvalue()
