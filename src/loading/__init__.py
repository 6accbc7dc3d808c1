"""A row of the folds table to a batch: cache, order, augmentation. What a row means belongs to data."""
