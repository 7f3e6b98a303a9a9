"""CocoDoom, and frames of the Doom engine that we render in its layout."""

from mult.data.cocodoom.dataset import CocoDoom

__all__ = ["CocoDoom"]
