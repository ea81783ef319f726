"""From a trained checkpoint to a bundle that is shown to compute the same."""
