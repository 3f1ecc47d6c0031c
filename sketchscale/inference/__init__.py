"""Predict fields (flow and distance) of an image with a network, tile by tile on one fixed grid; any number of axes.

views.py     the views of a network over a plane or a volume, and scale  views_of, fields_of_box
grid.py      the tiles of an array, and blending where they overlap     TileGrid, blend_box
resample.py  axes at another scale, exact for any part                  axis_taps, resampled
backend.py   the one way to run a network over tiles                    Backend, run_tiles
plan.py      the tasks, and the same for an array in memory             plan_predict, plan_blend, predict_array
where_next.py  where a network is uncertain                             uncertainty_of, choose_places
"""
