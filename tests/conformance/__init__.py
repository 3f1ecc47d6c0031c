"""Suites that every plugin inherits."""
