"""How fast and how large the network, its metrics and its data are: the measurements of `scripts/benchmark.py`."""
