"""Objects: their features (measurement), annotations by people (annotation) and classes (classifiers)."""
