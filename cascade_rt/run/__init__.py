"""Runs: from scans to results, one scan or many."""
