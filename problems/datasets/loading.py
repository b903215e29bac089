"""Every data set by its name."""

from __future__ import annotations

from collections.abc import Callable

from mlo.errors import DataError, nearest
from problems.datasets.cifar import load_cifar
from problems.datasets.digits import load_digits
from problems.datasets.fingerprint import fingerprint
from problems.datasets.image_folder import check_fits, decoded
from problems.datasets.image_layouts import IMAGE_LAYOUTS, image_folders
from problems.datasets.mnist1d import load_mnist1d
from problems.datasets.sets import DataSet


def load_data_set(name: str, path: str | None = None, *, size: int | None = None) -> DataSet:
    """Load a data set into memory. Nothing is ever downloaded.

    Args:
        name: one of `DATA_SETS`.
        path: where the files are, for the sets that come in files; by default they are looked
            for in the folder of `MLO_DATA` under the names that the documentation lists.
        size: height and width that image files are decoded to, for the sets of image files.

    Returns:
        The set. CIFAR and image files are uint8, digits and MNIST-1D float32.

    Raises:
        DataError: there is no such set; the set takes no path or no size; or its files are
            absent, damaged or too large, or a package is: the message says what to fetch.
        ConfigurationError: `size` is not positive.
    """
    load = _LOADERS.get(name)
    if load is None:
        raise DataError(
            f"name: expected one of {', '.join(_LOADERS)}, found {name!r}{nearest(name, _LOADERS)}"
        )
    return load(name, path, size)


def _digits(name: str, path: str | None, size: int | None) -> DataSet:
    _check_unused(name, path=path, size=size)
    train = load_digits()
    return DataSet(name, "digits", fingerprint(*train), train, None, 10)


def _mnist1d(name: str, path: str | None, size: int | None) -> DataSet:
    _check_unused(name, path=path, size=size)
    train, test = load_mnist1d()
    return DataSet(name, "MNIST-1D", fingerprint(*train, *test), train, test, 10)


def _cifar(name: str, path: str | None, size: int | None) -> DataSet:
    _check_unused(name, size=size)
    return load_cifar(name, path)


def _images(name: str, path: str | None, size: int | None) -> DataSet:
    folders = image_folders(name, path, size=size)
    check_fits([folders["train"], folders["test"]])
    train, test = decoded(folders["train"]), decoded(folders["test"])
    content = fingerprint(*train, *test)
    source = f"{IMAGE_LAYOUTS[name].title} (unverified copy {content[:8]})"
    return DataSet(name, source, content, train, test, int(train[1].max()) + 1)


def _check_unused(name: str, **given: object) -> None:
    for argument, value in given.items():
        if value is not None:
            raise DataError(
                f"{argument}: expected none for {name!r}, found {value!r}. Leave it out, or choose "
                "a set that has one."
            )


_LOADERS: dict[str, Callable[[str, str | None, int | None], DataSet]] = {
    "digits": _digits,
    "mnist1d": _mnist1d,
    "cifar10": _cifar,
    "cifar100": _cifar,
    "animal10n": _images,
    "clothing1m": _images,
    "imagenet": _images,
}

DATA_SETS = tuple(_LOADERS)
"""The names that `load_data_set` knows."""
