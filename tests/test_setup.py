"""The set-up script: old Pythons, moved folders."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

SETUP = pathlib.Path(__file__).parents[1] / "scripts/setup"


def set_up(folder, monkeypatch, python):
    """Run a copy of the set-up script where `python3` is the given shell script."""
    for part in ("scripts", "bin"):
        (folder / part).mkdir(exist_ok=True)
    shutil.copy(SETUP, folder / "scripts/setup")
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).touch()
    fake = folder / "bin/python3"
    fake.write_text(f"#!/bin/sh\n{python}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    return subprocess.run(
        [folder / "scripts/setup"], capture_output=True, text=True, check=False, timeout=60
    )


OLD = 'case "$1" in -c) exit 1;; --version) echo Python 3.10.4;; *) exit 7;; esac'


# Makes an environment whose programs note how they are called.
NEW = """case "$1" in
  -c) exit 0;;
  -m) mkdir -p "$3/bin"
      printf '#!/bin/sh\\necho "$@" >> calls\\n' > "$3/bin/python"
      cp "$3/bin/python" "$3/bin/pip"; chmod +x "$3/bin/python" "$3/bin/pip"; touch "$3/fresh";;
esac"""


def test_the_set_up_refuses_an_old_python_and_leaves_nothing(tmp_path, monkeypatch):
    done = set_up(tmp_path, monkeypatch, OLD)
    assert done.returncode == 1
    assert "3.11" in done.stderr
    assert "3.10.4" in done.stderr
    assert "PATH" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / ".venv").exists()


def test_the_set_up_installs_once_and_again_where_the_folder_was_moved(tmp_path, monkeypatch):
    old, new = tmp_path / "old place", tmp_path / "new place"
    old.mkdir()
    assert set_up(old, monkeypatch, NEW).returncode == 0
    installs = (old / "calls").read_text().count("install")
    assert installs == 1
    stamp = old / ".venv/.installed"
    os.utime(stamp, (stamp.stat().st_mtime + 60,) * 2)  # newer than the files copied anew
    assert set_up(old, monkeypatch, OLD).stdout == ""
    old.rename(new)
    (new / ".venv/fresh").unlink()
    assert set_up(new, monkeypatch, NEW).returncode == 0
    assert (new / ".venv/fresh").exists()
    assert (new / ".venv/.installed").read_text().strip() == str(new)
