"""Rendered demo data with their true masks belong here; what reads, checks or learns from them does not."""
