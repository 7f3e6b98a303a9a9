"""How the data lie on the disk: pictures, encodings, derived labels, splits, and the parameters of the datasets we render."""
