"""Bundles: contents, verification and reading."""
