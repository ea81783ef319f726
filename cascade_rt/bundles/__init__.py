"""Bundles: what they hold, whether they may be trusted, and how they are read."""
