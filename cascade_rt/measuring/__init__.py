"""Accuracy and speed: evaluation against true labels, and benchmarks."""
