"""Rooms: furnished rooms that we render, with labels for all six tasks."""

from mult.data.rooms.dataset import Rooms

__all__ = ["Rooms"]
