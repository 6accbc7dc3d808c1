"""What a data set means: layouts, pairing, groups, folds and the leak audit. Arrays for a network belong to loading."""
