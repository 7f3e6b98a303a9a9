"""What the scripts do to data before training: annotate a folder of RGB-D, derive labels that are missing, check a dataset."""
