"""Phantoms, and cases as training reads them."""
