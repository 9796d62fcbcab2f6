"""Rewrites of the decoder: fewer operations, the same result."""

from ffnet_deploy.export.rewrites.passes import LABEL_FORMS, AppliedRewrite, Rewrite, rewrite

__all__ = ["LABEL_FORMS", "AppliedRewrite", "Rewrite", "rewrite"]
