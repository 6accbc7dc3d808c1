"""The parts of make doctor: what it found, the environment, the data, the folds, the disk, and a training on trial."""
