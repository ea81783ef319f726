"""What a run leaves: masks, measurements, reports and pictures."""
