"""Masks to numbers, and how sure they are. Which masks are scored belongs to scoring; no torch."""
