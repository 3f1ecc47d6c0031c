"""Reports of a run: counts by plate and class, pictures, one HTML page. Runs without torch."""
