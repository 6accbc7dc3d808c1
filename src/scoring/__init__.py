"""Honest numbers about runs, folds and experiments. The formulas belong to metrics, the pages to reporting."""
