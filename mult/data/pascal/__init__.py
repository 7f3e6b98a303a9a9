"""PASCAL-Context for multitask learning, in the folder PASCAL_MT."""

from mult.data.pascal.dataset import Pascal

__all__ = ["Pascal"]
