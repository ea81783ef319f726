"""Reading scans: files, headers, checks and the canonical grid."""
