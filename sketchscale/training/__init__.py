"""From annotated images to a model: patches, augmentation, the loop."""
