"""The network: `MulT` and the parts it is made of."""

from mult.models.mult import MulT

__all__ = ["MulT"]
