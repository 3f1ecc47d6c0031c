"""From an image and a network to fields (flow and distance), tile by tile on one fixed grid; volume.py in 3-D."""
