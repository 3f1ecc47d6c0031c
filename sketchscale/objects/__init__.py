"""What is known of each object (measurement), what people say of it (annotation), which class it has (classifiers)."""
