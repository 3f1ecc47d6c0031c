"""Training pairs from centre points: layouts of objects, images of them, and measures of their quality."""
