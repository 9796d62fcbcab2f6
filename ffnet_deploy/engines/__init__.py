"""Engines: one protocol, and one module for each kind of runtime."""

from ffnet_deploy.engines.engine import Engine

__all__ = ["Engine"]
