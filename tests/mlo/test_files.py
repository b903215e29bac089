"""Files that are whole or as they were, and numbers that JSON lacks."""

from __future__ import annotations

import errno
import json
import math
import os

import pytest

from mlo.errors import RunFolderError
from mlo.files import json_text, write_bytes, write_text


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("function", ["replace", "fdopen"])
def test_a_disk_that_is_full_or_closed_is_a_typed_error_and_old_files_stay(
    tmp_path, monkeypatch, code, function
):
    path = tmp_path / "file"
    write_text(path, "old")
    real = os.fdopen

    def refuse(handle, *args):
        if function == "fdopen":
            os.close(handle)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(f"mlo.files.os.{function}", refuse)
    for write in (lambda: write_text(path, "new"), lambda: write_bytes(path, b"new")):
        with pytest.raises(RunFolderError, match=f"cannot write.*file.*{os.strerror(code)}"):
            write()
    monkeypatch.undo()
    assert os.fdopen is real
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_text(path, "old")
    real = os.replace
    for late in (False, True):

        def interrupted(*names, late=late):
            if late:
                real(*names)
            raise KeyboardInterrupt

        monkeypatch.setattr("mlo.files.os.replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_text(path, "new")
        assert path.read_text() == ("new" if late else "old")
        assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    write_text(path, "newer")
    assert path.read_text() == "newer"
    assert path.stat().st_mode & 0o777 == 0o644


def test_numbers_that_json_lacks_are_written_as_words_and_read_back():
    value = {"a": [math.nan, (math.inf, 1.5)], "b": {"c": -math.inf}, 3: None, "d": True}
    text = json_text(value)
    assert json.loads(text) == {
        "a": ["nan", ["inf", 1.5]],
        "b": {"c": "-inf"},
        "3": None,
        "d": True,
    }
    assert math.isnan(float(json.loads(text)["a"][0]))
