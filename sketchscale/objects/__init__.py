"""Each object as one row: features (features, partials), classes (classifiers, classes), the tasks for both (plan)."""
