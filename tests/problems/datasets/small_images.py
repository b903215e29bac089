"""Trees of tiny images in the layouts of ANIMAL-10N, Clothing1M and ImageNet."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

import numpy as np
from PIL import Image

CLOTHING_LISTS = {
    "train": "noisy_train",
    "clean_train": "clean_train",
    "clean_val": "clean_val",
    "test": "clean_test",
}


def image(path: pathlib.Path, seed: int, size: tuple[int, int] = (8, 8)) -> pathlib.Path:
    """Write random pixels of a height and a width; as PNG, whatever the name, to lose nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed, size)).save(path, format="PNG")
    return path


def pixels(seed: int, size: tuple[int, int] = (8, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def animals(root: pathlib.Path) -> pathlib.Path:
    """Two training images and one test image of each class; image n has pixels(n)."""
    for n in range(20):
        image(root / "training" / f"{n % 10}_{n}.jpg", n)
    for n in range(20, 30):
        image(root / "testing" / f"{n % 10}_{n}.jpg", n)
    return root


def clothing(root: pathlib.Path) -> pathlib.Path:
    """One image of each class in each part; image n has class n % 14, and the next by noise."""
    root.mkdir(exist_ok=True)
    keys = {
        part: [f"images/{n % 3}/{n},{n + 1}.jpg" for n in range(14 * p, 14 * p + 14)]
        for p, part in enumerate(CLOTHING_LISTS)
    }
    for part, names in keys.items():
        lines(root / f"{CLOTHING_LISTS[part]}_key_list.txt", names)
        for key in names:
            image(root / key, number(key))
    noisy = [f"{key} {(number(key) + 1) % 14}" for key in keys["train"] + keys["clean_train"]]
    lines(root / "noisy_label_kv.txt", noisy)
    clean = [f"{k} {number(k) % 14}" for part in [*keys][1:] for k in keys[part]]
    lines(root / "clean_label_kv.txt", clean)
    return root


def number(key: str) -> int:
    return int(pathlib.Path(key).name.partition(",")[0])


def lines(path: pathlib.Path, content: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in content))


def wordnet(root: pathlib.Path) -> pathlib.Path:
    """Three classes of two training images and one test image."""
    for label, name in enumerate(("n01440764", "n01443537", "n02119789")):
        for n in range(2):
            image(root / "train" / name / f"{name}_{n}.JPEG", 10 * label + n, (9, 12))
        image(root / "val" / name / f"ILSVRC2012_val_{label:08}.JPEG", 10 * label + 9, (12, 9))
    return root


TREES = {"animal10n": animals, "clothing1m": clothing, "imagenet": wordnet}
