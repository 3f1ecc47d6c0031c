"""From centre points to training pairs: layouts of objects, images for them, and how good they are."""
