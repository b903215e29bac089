"""Files in the layout of CIFAR, with few records each, and what they say."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import pathlib
import tarfile

import numpy as np

from problems.datasets import cifar

SIZES = {
    "cifar10": dict.fromkeys(cifar.LAYOUTS["cifar10"].files, 20),
    "cifar100": {"train.bin": 200, "test.bin": 100},
}


def small(name: str, monkeypatch, **changes: object) -> cifar.Layout:
    """Let the loader take files of few records; returns what it then expects."""
    layout = dataclasses.replace(cifar.LAYOUTS[name], files=SIZES[name], **changes)
    monkeypatch.setitem(cifar.LAYOUTS, name, layout)
    return layout


def records(layout: cifar.Layout, seed: int = 0) -> dict[str, np.ndarray]:
    """Records [n, L + 3072] of each file: every class in turn, superclass k % 20, random pixels."""
    draw = np.random.default_rng(seed)
    made = {}
    for file, count in layout.files.items():
        fine = np.arange(count) % layout.ranges[-1]
        labels = [fine] if len(layout.ranges) == 1 else [fine % 20, fine]
        pixels = draw.integers(0, 256, (count, 3072))
        made[file] = np.column_stack([*labels, pixels]).astype(np.uint8)
    return made


def written(folder: pathlib.Path, content: dict[str, np.ndarray]) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, rows in content.items():
        (folder / file).write_bytes(rows.tobytes())
    return folder


def packed(path: pathlib.Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> str:
    """Write a .tar.gz of these members; returns its MD5."""
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


def member(name: str, content: bytes, **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, content


def members(layout: cifar.Layout, content: dict[str, np.ndarray]) -> list:
    return [member(f"{layout.folder}/{file}", rows.tobytes()) for file, rows in content.items()]
