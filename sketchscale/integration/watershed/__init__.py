"""Turn maps v, h, m into objects: slopes, markers, flooding from the markers; exact for any blocks.

config.py  the options of the rule                                      WatershedConfig
relief.py  how steeply the maps fall around each pixel, and the markers  relief_of, Relief
flood.py   one block's share of the minimum spanning forest              flood_block, Basins
merge.py   join the shares of all blocks to one forest                   join_basins
plan.py    the tasks, from stored maps to a stored label image           hover_labels, plan_flood, merge_basins
audit.py   recompute windows on the seams and compare them               audit_floods
"""
