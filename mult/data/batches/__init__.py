"""Between a dataset and a batch: transforms, mixtures of datasets, the order of samples, class maps and corruptions."""
