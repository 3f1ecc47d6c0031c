"""Maps v, h, m to objects: slopes, markers, flooding from the markers; exact for any blocks.

config.py  every number of it                                           WatershedConfig
relief.py  how steep the maps fall around each pixel of a box, markers   relief_of, Relief
flood.py   one block's share of the minimum spanning forest              flood_block, Basins
merge.py   the shares of all blocks to one forest                        join_basins
plan.py    the tasks, from stored maps to a stored label image           hover_labels, plan_flood, merge_basins
audit.py   what a window on a seam determines                            audit_floods
"""
