"""Models to probability maps, masks and rows of a submission. Never Lightning: a kernel takes these along."""
