"""A training run on the disk: its folder, its checkpoints and the facts that explain it."""
