"""What people say of objects: files of marks, examples to learn from, proposals, judged samples."""
