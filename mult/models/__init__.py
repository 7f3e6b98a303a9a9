"""The network: `MulT` and the parts it is made of."""

from mult.models.arguments import resolve_reference
from mult.models.mult import MulT

__all__ = ["MulT", "resolve_reference"]
