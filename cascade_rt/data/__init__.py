"""Data sets, the case store, phantoms and sampling for training."""
