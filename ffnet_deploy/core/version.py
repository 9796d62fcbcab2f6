"""The version of the toolkit: the one place where it stands."""

__version__ = "0.2.0.dev0"
