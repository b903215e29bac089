"""Where the data of an experiment come from."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from mlo.configuration import RecipeConfig
from mlo.errors import DataError
from problems.datasets import DataSet, load_data_set
from problems.setting_kinds import PathName

_MADE = ("digits", "mnist1d")
_IMAGE_FILES = ("animal10n", "clothing1m", "imagenet")


class Source(RecipeConfig):
    """The data set, and how it is read and prepared."""

    dataset: Literal[
        "digits", "mnist1d", "cifar10", "cifar100", "animal10n", "clothing1m", "imagenet"
    ] = Field("digits", description="inputs and labels")
    data: PathName | None = Field(
        None, description="folder or archive of the data set; else looked for in MLO_DATA"
    )
    image_size: int | None = Field(
        None, ge=1, description="height and width that image files are decoded to"
    )
    augment: bool = Field(True, description="crop and flip natural images")

    @model_validator(mode="after")
    def _only_where_it_is_read(self) -> Source:
        if self.data is not None and self.dataset in _MADE:
            raise ValueError(f"data: expected none for '{self.dataset}', got '{self.data}'")
        if self.image_size is not None and self.dataset not in _IMAGE_FILES:
            raise ValueError(
                f"image_size: expected none for '{self.dataset}', got {self.image_size}"
            )
        return self

    def load(self, carry: Mapping[str, Any] | None = None) -> DataSet:
        """The data set of a run, which its stages share; nobody writes to it.

        Args:
            carry: what earlier stages of the repetition have handed on, if any.

        Raises:
            DataError: it cannot be read, or is not that of the earlier stages.
        """
        data = _loaded(self.dataset, self.data, self.image_size)
        for stage, kept in (carry or {}).items():
            found = kept.get("data") if isinstance(kept, Mapping) else None
            if found is not None and found["fingerprint"] != data.fingerprint:
                raise DataError(
                    f"data: expected those of stage '{stage}', {found['source']} with fingerprint "
                    f"{found['fingerprint'][:16]}, found {data.source} with "
                    f"{data.fingerprint[:16]}; go on with the files that the run began with"
                )
        return data


@functools.lru_cache(maxsize=1)
def _loaded(name: str, path: str | None, size: int | None) -> DataSet:
    return load_data_set(name, path, size=size)
