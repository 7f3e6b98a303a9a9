"""Training: an experiment out of a config, the loop, its state and its log. README.md beside this file explains them."""
