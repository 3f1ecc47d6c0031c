"""Slow, obvious twins of the fast kernels: one file per topic."""
