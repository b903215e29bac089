"""Members of a .tar.gz archive whose checksum is known, read without unpacking it to disk."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping

import numpy as np

from mlo.errors import DataError, described
from problems.datasets.files import refusal, unreadable

SLACK = 2**20
"""Bytes that headers and small files may take beside the members that are asked for."""


def verified_members(
    path: str, md5: str, sizes: Mapping[str, int], cure: str
) -> dict[str, np.ndarray]:
    """Read members into memory, after the checksum of the whole archive has been compared.

    Nothing the archive states is trusted: at most the sizes asked for and `SLACK` are
    decompressed, nothing is written, and only plain files of the names and sizes asked for count.

    Args:
        path: the archive.
        md5: the checksum that it must have.
        sizes: the name and the size in bytes of each member.
        cure: what to do where the archive does not fit.

    Returns:
        The members, uint8 [size] and not writable, by name.

    Raises:
        DataError: the archive is another one, cannot be read or is damaged, expands to more, or
            has no plain file of that name and size.
    """
    try:
        content = _decompressed(path, md5, sum(sizes.values()) + SLACK, cure)
        return _members(path, content, sizes, cure)
    except DataError:
        raise
    # Damage can surface as nearly every kind of error.
    except Exception as error:
        # An archive decides some of these words, and a terminal obeys what is not printable.
        reason = repr(described(error).partition("\n")[0][:200])[1:-1]
        raise refusal(path, "a .tar.gz archive", f"a damaged one ({reason})", cure) from error


def _decompressed(path: str, md5: str, limit: int, cure: str) -> bytes:
    # One handle: what is read is what was verified.
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
            if found.hexdigest() != md5:
                raise refusal(path, f"the archive with the MD5 {md5}", found.hexdigest(), cure)
            file.seek(0)
            with gzip.GzipFile(fileobj=file) as stream:
                content = stream.read(limit + 1)
    except gzip.BadGzipFile:
        raise
    except OSError as error:
        raise unreadable(path, "an archive", error) from error
    if len(content) > limit:
        raise refusal(path, f"at most {limit} bytes when unpacked", "more", cure)
    return content


def _members(
    path: str, content: bytes, sizes: Mapping[str, int], cure: str
) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if name not in sizes:
                continue
            expected = f"one plain file {name} of {sizes[name]} bytes"
            if name in found:
                raise refusal(path, expected, "two", cure)
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                raise refusal(path, expected, "a link or a file of another kind", cure)
            present = min(member.size, len(content) - member.offset_data)
            if not present == member.size == sizes[name]:
                raise refusal(path, expected, f"{present} bytes of {member.size}", cure)
            found[name] = np.frombuffer(content, np.uint8, member.size, member.offset_data)
    absent = [name for name in sizes if name not in found]
    if absent:
        raise refusal(path, f"the member {absent[0]}", "none", cure)
    return found
