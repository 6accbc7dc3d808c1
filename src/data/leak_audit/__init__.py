"""Copies of one image in two folds: candidates, alignment, verdict. Groups by names belong to data."""
