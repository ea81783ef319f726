"""Scans as they are read: files, headers, checks, the canonical grid."""
