"""Handing artefacts to an existing server."""
