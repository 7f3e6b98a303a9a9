"""YAML files and overrides become a Config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from mult.config import schema
from mult.config.merge import apply_override, load_file
from mult.config.sections import Config, DataConfig, check_mixture, complete_mixture
from mult.config.shipped import find_config
from mult.errors import UserError, suggest

FROM_DEFAULTS = ("image_size", "fit", "batch_size", "workers")
"""Keys of a data section that depend on the network and the machine rather than on the dataset."""

_NOT_OF_FILES = ("dataset", "root", "fit", "batch_size", "workers", "augment", "jitter", "labels", "weight", "mix")
"""Keys of a data section that say nothing of how a dataset's files are read, or are arguments of `build_data_config`."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and the file that it derives from (`base:`, relative to it), then apply the overrides.

    `path` is that of a file, or the name of one that comes with mult, such as "rooms6".

    Mappings merge key by key; other values replace, and so does `tasks` as a whole. An override is `section.key=value` with
    the value in YAML; it may reach into mappings (`data.options.views=10`, `tasks.<name>=0.5`, `tasks.<name>.loss=l1`), and a
    mapping as the value replaces the one before.

    Raises UserError for a missing file and for anything that is wrong in a file or an override.
    """
    tree = load_file(Config, find_config(path))
    for override in overrides:
        tree = apply_override(Config, tree, override)
    return Config.from_dict(tree, str(path))


PLACES = ("data.root", "data.workers", "data.batch_size")
"""The overrides of a data section that change where an evaluation reads and how fast, not what it measures."""


def load_data_config(path: str | Path, defaults: DataConfig, overrides: Sequence[str] = ()) -> DataConfig:
    """The `data` section of a YAML file, found as `load_config` does, that may hold nothing else, and overrides of PLACES.

    The keys of FROM_DEFAULTS are as in `defaults` where the section leaves them out. Raises UserError for a missing file and
    for anything that is wrong in it, in any section, and for another override: two evaluations of one name would differ by it.
    """
    for override in overrides:
        key = override.partition("=")[0]
        if key not in PLACES:
            remedy = suggest(key, PLACES, "write a YAML of a data section, and give it by --config")
            raise UserError(f"override {override!r}: got {key}; expected {' or '.join(PLACES)}; {remedy}")
    tree = load_file(Config, find_config(path))
    if "data" not in tree:
        sections = ", ".join(tree) or "nothing"
        raise UserError(f"{path}: got {sections}; expected a data section; say what to read in data.dataset and data.root")
    for override in overrides:
        tree = apply_override(Config, tree, override)
    common = {key: getattr(defaults, key) for key in FROM_DEFAULTS}
    data = schema.read(DataConfig, complete_mixture(common | tree["data"]), f"{path}: data")
    assert isinstance(data, DataConfig)
    check_mixture(data, str(path))
    return data


def build_data_config(dataset: str, root: str, overrides: Sequence[str] = ()) -> DataConfig:
    """A `data` section for reading a dataset's files; an override is `key=value` or `options.key=value`.

    Raises UserError for what is wrong in an override, and for one that changes nothing of what is read.
    """
    # The section requires both numbers, but nothing is resized or batched where no network reads the images. 32, the smallest
    # size, is one for which any pack has room.
    tree = {"data": {"dataset": dataset, "root": root, "image_size": 32, "batch_size": 1}}
    for override in overrides:
        key = override.split("=")[0].split(".")[0]
        if key in _NOT_OF_FILES:
            others = ", ".join(field.name for field in fields(DataConfig) if field.name not in _NOT_OF_FILES)
            raise UserError(f"key=value: got {override!r}; expected {others}, which say what is read; leave it out")
        tree = apply_override(Config, tree, f"data.{override}")
    data = schema.read(DataConfig, tree["data"], "data")
    assert isinstance(data, DataConfig)
    return data
