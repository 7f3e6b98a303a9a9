"""Datasets whose items are `Sample`s, and the transforms between a dataset and a batch."""

from mult.data.cocodoom import CocoDoom
from mult.data.nyu import NYU
from mult.data.replica import Replica
from mult.data.rooms import Rooms
from mult.data.taskonomy import Taskonomy
from mult.data.transforms import Augmented, EvalTransform, TrainTransform

__all__ = ["NYU", "Augmented", "CocoDoom", "EvalTransform", "Replica", "Rooms", "Taskonomy", "TrainTransform"]
