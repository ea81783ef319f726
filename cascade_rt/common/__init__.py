"""Utilities shared by the whole library: paths, files, arguments, labels, tensors. Independent of the cascade."""
