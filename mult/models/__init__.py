"""The network: `MulT` and the parts it is made of."""

from mult.models.mult import MulT, resolve_reference

__all__ = ["MulT", "resolve_reference"]
