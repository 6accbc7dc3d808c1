"""Files to arrays and back, strictly: decoding, resizing, run lengths, archives. Their meaning belongs to data."""
