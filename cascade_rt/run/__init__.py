"""Runs of one scan or many, from scan files to results."""
