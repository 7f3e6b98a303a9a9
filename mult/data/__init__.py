"""The datasets, whose items are `Sample`s (sample.py): a folder each, imported when its class is first used.

A new dataset is a folder here, whose __init__.py exports the class, and a line in DATASETS. The class takes `root`, `split` and
`tasks`, optionally `subset`, `max_depth_m` and `image_size`, which are keys of a config's data section, and as keyword
arguments whatever data.options may hold; it implements `sample.Reader`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mult.data.cocodoom import CocoDoom as CocoDoom
    from mult.data.nyu import NYU as NYU
    from mult.data.packed import Packed as Packed
    from mult.data.pascal import Pascal as Pascal
    from mult.data.replica import Replica as Replica
    from mult.data.rooms import Rooms as Rooms
    from mult.data.taskonomy import Taskonomy as Taskonomy

DATASETS = {
    "taskonomy": "Taskonomy",
    "rooms": "Rooms",
    "replica": "Replica",
    "nyu": "NYU",
    "pascal": "Pascal",
    "cocodoom": "CocoDoom",
    "packed": "Packed",
}
"""`data.dataset` of a config, which is the folder's name too -> the class that the folder exports."""

LICENCES = {
    "taskonomy": "non-commercial, by the terms of Taskonomy's authors",
    "rooms": "MIT",
    "replica": "research use, by the terms of Replica's authors",
    "nyu": "by the terms of NYU Depth v2's authors, at cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html",
    "pascal": "by the terms of PASCAL VOC, PASCAL-Context and PASCAL-Part",
    "cocodoom": "CocoDoom's by the terms of its authors; frames of Freedoom by its BSD licence",
    "packed": "that of the dataset that was packed",
}
"""`data.dataset` of a config -> the licence of the data, for the card of a model that was trained on them."""


def __getattr__(name: str) -> Any:
    for folder, class_name in DATASETS.items():
        if name == class_name:
            return getattr(import_module(f"{__name__}.{folder}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
