"""Each object as one row: features (features, partials), classes (classify), and the tasks that find both (plan)."""
