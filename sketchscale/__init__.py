"""From a few strokes on a huge microscope image to every object outlined, measured, classified and counted."""

__version__ = "0.1.0"
