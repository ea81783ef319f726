"""What every part of the library uses: paths, files, arguments, labels, tensors, and nothing of the cascade."""
