"""The report as a page: one HTML file with the numbers, the scan and the mask, which opens offline in any browser."""
