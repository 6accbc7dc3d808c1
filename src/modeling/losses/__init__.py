"""Losses on logits, each a mean over images, and the text that sums them. Measures of masks belong to metrics."""
