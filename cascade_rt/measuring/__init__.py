"""How good and how fast: evaluation against labels, and benchmarks."""
