"""Each object as one row: features (features), from exact sums (partials) and whole objects (crops); see stream."""
