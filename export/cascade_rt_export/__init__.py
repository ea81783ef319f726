"""Export a trained checkpoint to a bundle that is verified to compute the same."""
