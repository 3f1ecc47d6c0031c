"""Annotations of objects by people: files of marks, training examples, proposals, reviewed samples."""
