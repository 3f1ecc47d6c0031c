"""Measure every object as one row of features, from exact sums (partials) and whole objects (crops); see stream."""
