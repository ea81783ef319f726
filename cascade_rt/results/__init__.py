"""Results of a run: masks, measurements, reports and pictures."""
