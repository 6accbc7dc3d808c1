"""What all folders may use: errors, console, files, names, run folders, locks, processes. No torch at import."""
