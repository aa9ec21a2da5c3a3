"""The version: of the distribution, of what is written into files."""

__version__ = "0.2.0"
