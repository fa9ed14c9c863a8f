"""Measurements of the package: `python -m bench --help`."""
