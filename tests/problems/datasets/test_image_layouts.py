"""The layouts of ANIMAL-10N, Clothing1M and ImageNet, on generated trees."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from mlo.errors import ConfigurationError, DataError
from problems.datasets import image_folder, image_folders, image_layouts, image_lists, load_data_set

from .small_images import CLOTHING_LISTS, TREES, animals, clothing, image, lines, pixels, wordnet


def refused(name, root, *parts, **kwargs):
    with pytest.raises(DataError) as caught:
        image_folders(name, None if root is None else str(root), **kwargs)
    for part in parts:
        assert str(part) in str(caught.value)


def test_animals_have_the_labels_of_their_names(tmp_path):
    parts = image_folders("animal10n", str(animals(tmp_path)), size=8)
    assert [*parts] == ["train", "test"]
    for part, numbers in (("train", range(20)), ("test", range(20, 30))):
        found = {
            file: int(label)
            for file, label in zip(parts[part].files, parts[part].labels, strict=True)
        }
        folder = {"train": "training", "test": "testing"}[part]
        assert found == {f"{folder}/{n % 10}_{n}.jpg": n % 10 for n in numbers}
        first = parts[part][0]
        assert np.array_equal(first[0].permute(1, 2, 0).numpy(), pixels(numbers[0]))


def test_clothes_have_noisy_labels_for_training_and_clean_ones_elsewhere(tmp_path):
    parts = image_folders("clothing1m", str(clothing(tmp_path)), size=8)
    assert [*parts] == ["train", "clean_train", "clean_val", "test"]
    for p, (part, found) in enumerate(parts.items()):
        numbers = range(14 * p, 14 * p + 14)
        assert found.labels.tolist() == [(n + (part == "train")) % 14 for n in numbers]
        assert np.array_equal(found[3][0].permute(1, 2, 0).numpy(), pixels(numbers[3]))


def test_imagenet_numbers_its_folders_in_order(tmp_path):
    parts = image_folders("imagenet", str(wordnet(tmp_path)), size=6)
    assert parts["train"].labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert parts["test"].labels.tolist() == [0, 1, 2]
    assert parts["train"].files[2] == "train/n01443537/n01443537_0.JPEG"
    assert parts["test"][2][0].shape == (3, 6, 6)


@pytest.mark.parametrize(
    ("name", "size"), [("animal10n", 64), ("clothing1m", 224), ("imagenet", 224)]
)
def test_each_set_has_its_size(name, size, tmp_path):
    assert image_folders(name, str(TREES[name](tmp_path)))["test"][0][0].shape == (3, size, size)


@pytest.mark.parametrize("name", TREES)
def test_load_data_set_decodes_what_fits(name, tmp_path, monkeypatch):
    root = TREES[name](tmp_path / name)
    monkeypatch.setenv("MLO_DATA", str(tmp_path))
    data, parts = load_data_set(name, size=5), image_folders(name, str(root), size=5)
    for part, (images, labels) in (("train", data.train), ("test", data.test)):
        assert torch.equal(labels, parts[part].labels)
        assert all(torch.equal(images[n], parts[part][n][0]) for n in range(len(labels)))
    assert data.classes == {"animal10n": 10, "clothing1m": 14, "imagenet": 3}[name]
    title = {"animal10n": "ANIMAL-10N", "clothing1m": "Clothing1M", "imagenet": "ImageNet"}[name]
    assert data.source == f"{title} (unverified copy {data.fingerprint[:8]})"
    assert load_data_set(name, size=4).fingerprint != data.fingerprint


def test_load_data_set_refuses_what_does_not_fit_before_it_decodes(tmp_path, monkeypatch):
    animals(tmp_path)
    monkeypatch.setattr(image_folder, "decode", None)
    size = 30 * 3 * 50_000**2
    with pytest.raises(DataError, match=rf"8000000000 bytes.*found {size} for 30 images"):
        load_data_set("animal10n", str(tmp_path), size=50_000)


@pytest.mark.parametrize("name", TREES)
def test_an_absent_set_says_what_to_fetch_and_where_to_put_it(name, tmp_path, monkeypatch):
    page = image_layouts.IMAGE_LAYOUTS[name].page
    monkeypatch.delenv("MLO_DATA", raising=False)
    refused(name, None, "not set", "MLO_DATA", page)
    refused(name, tmp_path, tmp_path, "MLO_DATA", page)
    refused(name, tmp_path / "nowhere", "nowhere", "MLO_DATA", page)
    monkeypatch.setenv("MLO_DATA", str(tmp_path))
    refused(name, None, tmp_path / name, "no folder", page)


def test_an_unknown_set_and_a_size_that_is_none_are_refused(tmp_path):
    refused("animals", tmp_path, "animal10n, clothing1m, imagenet", "'animals'")
    with pytest.raises(ConfigurationError, match="size: expected a positive"):
        image_folders("animal10n", str(animals(tmp_path)), size=0)


def test_hidden_files_are_passed_over(tmp_path):
    for name, make in TREES.items():
        root = make(tmp_path / name)
        for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
            (folder / ".DS_Store").write_bytes(b"x")
        assert image_folders(name, str(root))


@pytest.mark.parametrize("name", ["10_1.jpg", "cat_1.jpg", "3.jpg", "3_1.txt", "-1_1.jpg"])
def test_animals_whose_names_say_no_label_are_refused(name, tmp_path):
    image(animals(tmp_path) / "training" / name, 0)
    refused("animal10n", tmp_path, name, "LABEL_ID.jpg", "0 to 9")


@pytest.mark.parametrize("part", ["training", "testing"])
def test_a_class_without_images_is_refused(part, tmp_path):
    for path in (animals(tmp_path) / part).glob("4_*"):
        path.unlink()
    refused("animal10n", tmp_path, tmp_path / part, "none of class 4")


def test_a_part_that_is_absent_is_refused(tmp_path):
    for path in (animals(tmp_path) / "testing").iterdir():
        path.unlink()
    (tmp_path / "testing").rmdir()
    refused("animal10n", tmp_path, tmp_path / "testing", "no folder")
    (tmp_path / "testing").write_text("x")
    refused("animal10n", tmp_path, tmp_path / "testing", "something else")


@pytest.mark.parametrize(
    ("name", "place"), [("animal10n", "testing/9_x.jpg"), ("imagenet", "val/n01440764/x.JPEG")]
)
def test_links_out_of_the_set_are_refused(name, place, tmp_path):
    outside, root = image(tmp_path / "outside.jpg", 0), TREES[name](tmp_path / "set")
    os.symlink(outside, root / place)
    refused(name, root, root / place, "a link out of it")


def test_a_class_folder_that_leads_elsewhere_is_refused(tmp_path):
    root = wordnet(tmp_path / "set")
    for part in ("train", "val"):
        image(tmp_path / part / "a.JPEG", 0)
        os.symlink(tmp_path / part, root / part / "n99999999")
    refused("imagenet", root, "n99999999", "a link out of it")


def test_folders_of_classes_that_do_not_agree_are_refused(tmp_path):
    (wordnet(tmp_path) / "val" / "n02119789").rename(tmp_path / "val" / "n02119790")
    refused("imagenet", tmp_path, tmp_path / "val", "the classes of train", "n02119789")


def test_imagenet_refuses_an_empty_class_unsorted_images_and_other_files(tmp_path):
    root = wordnet(tmp_path / "a")
    (root / "val" / "n01443537" / "ILSVRC2012_val_00000001.JPEG").unlink()
    refused("imagenet", root, root / "val", "none of class n01443537")
    root = wordnet(tmp_path / "b")
    image(root / "val" / "ILSVRC2012_val_00000007.JPEG", 0)
    refused("imagenet", root, "ILSVRC2012_val_00000007.JPEG", "sort the images")
    root = wordnet(tmp_path / "c")
    (root / "train" / "n01440764" / "notes.txt").write_text("x")
    refused("imagenet", root, "notes.txt", "an image")
    root = wordnet(tmp_path / "d")
    (root / "train" / "n01440764").rename(root / "kept")
    (root / "train" / "n01443537").rename(root / "kept2")
    refused("imagenet", root, root / "train", "two classes", "found 1")


def edited(root, file, edit):
    path = root / file
    lines(path, edit(path.read_text().splitlines()))
    return root


KEYS, LABELS = "noisy_train_key_list.txt", "noisy_label_kv.txt"

BROKEN = {
    "twice": (KEYS, lambda k: [*k, k[0]], "again in line 15"),
    "no label": (LABELS, lambda k: k[1:], "without one"),
    "too large": (LABELS, lambda k: [*k, "images/0/x.jpg 14"], "0 to 13 in line"),
    "negative": (LABELS, lambda k: [*k, "images/0/x.jpg -1"], "0 to 13 in line"),
    "no number": (LABELS, lambda k: [*k, "images/0/x.jpg one"], "0 to 13 in line"),
    "label alone": (LABELS, lambda k: [*k, "3"], "0 to 13 in line"),
    "two labels": (LABELS, lambda k: [*k, k[0][:-1] + "7"], "two for"),
    "class absent": (KEYS, lambda k: k[1:], "none of class 1"),
    "empty": (KEYS, lambda k: [], "none of class 0"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_lists_are_refused(kind, tmp_path):
    file, edit, found = BROKEN[kind]
    root = edited(clothing(tmp_path), file, edit)
    refused("clothing1m", root, root / (KEYS if kind == "no label" else file), found)


@pytest.mark.parametrize("key", ["../x.jpg", "/etc/hostname", "images/../../x.jpg"])
def test_keys_that_leave_the_folder_are_refused(key, tmp_path):
    root = edited(clothing(tmp_path), LABELS, lambda k: [*k, f"{key} 3"])
    refused("clothing1m", edited(root, KEYS, lambda k: [*k, key]), "paths inside it", key)


def test_a_label_without_a_file_is_refused(tmp_path):
    root = clothing(tmp_path)
    gone = root / (root / KEYS).read_text().splitlines()[5]
    gone.unlink()
    refused("clothing1m", root, gone, "no file")


def test_each_absent_list_is_named(tmp_path):
    files = [f"{part}_key_list.txt" for part in [*CLOTHING_LISTS.values()][1:]]
    for file in [*files, LABELS, "clean_label_kv.txt"]:
        path = clothing(tmp_path) / file
        path.unlink()
        refused("clothing1m", tmp_path, path, "no file")


def test_lists_that_are_no_text_or_too_long_are_refused(tmp_path, monkeypatch):
    path = clothing(tmp_path) / LABELS
    whole = path.read_bytes()
    path.write_bytes(whole + b"\xff\xfe")
    refused("clothing1m", tmp_path, path, "UTF-8")
    path.write_bytes(whole)
    monkeypatch.setattr(image_lists, "LONGEST_LIST", len(whole) - 1)
    refused("clothing1m", tmp_path, path, f"at most {len(whole) - 1} bytes")


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    animals(tmp_path)

    def failing(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", failing)
    refused("animal10n", tmp_path, tmp_path / "training", "Permission denied")
