"""Rows that can be compared with other people's: how they are made of runs, which are refused, and their table (README.md)."""
