"""What people say about images, sparse or dense: the sketch, its files, what a network learns from it."""
