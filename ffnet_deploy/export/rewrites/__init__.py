"""Rewrites of the decoder: fewer operations, the same result."""

from ffnet_deploy.export.rewrites.passes import AppliedRewrite, Rewrite, rewrite

__all__ = ["AppliedRewrite", "Rewrite", "rewrite"]
