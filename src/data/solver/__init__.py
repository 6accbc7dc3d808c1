"""Which files are images, which are masks, and which rule of their names pairs them: found, for any tree of files."""
