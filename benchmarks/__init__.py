"""Measurements of this project against the straightforward way; see README.md."""
