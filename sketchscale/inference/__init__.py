"""From an image and a network to fields (flow and distance), tile by tile on one fixed grid; any number of axes.

views.py     how a network sees a plane or a volume, at which scale     views_of, fields_of_box
grid.py      tiles of an array, and how overlapping ones are blended    TileGrid, blend_box
resample.py  axes at another scale, exact for any part                  axis_taps, resampled
backend.py   the one way in which tiles are run                         Backend, run_tiles
plan.py      the tasks, and the same for an array in memory             plan_predict, plan_blend, predict_array
places.py    where a network is unsure                                  uncertainty_of, choose_places
"""
