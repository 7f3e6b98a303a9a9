"""Datasets whose items are `Sample`s, and the transforms between a dataset and a batch."""

from mult.data.batches.transforms import Augmented, EvalTransform, TrainTransform
from mult.data.cocodoom.dataset import CocoDoom
from mult.data.nyu.dataset import NYU
from mult.data.replica.dataset import Replica
from mult.data.rooms.dataset import Rooms
from mult.data.taskonomy.dataset import Taskonomy

__all__ = ["NYU", "Augmented", "CocoDoom", "EvalTransform", "Replica", "Rooms", "Taskonomy", "TrainTransform"]
