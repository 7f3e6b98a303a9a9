"""Replica, as Omnidata and as ReplicaSDK rendered it."""

from mult.data.replica.dataset import Replica

__all__ = ["Replica"]
