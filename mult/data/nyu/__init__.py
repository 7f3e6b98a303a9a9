"""NYU Depth v2: what its .mat is unpacked into, and the folders that it is passed around in."""

from mult.data.nyu.dataset import NYU

__all__ = ["NYU"]
