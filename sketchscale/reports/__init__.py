"""What a run found, for people: counts by plate and class, pictures, one HTML page. Runs without torch."""
