"""Turn fields into objects: follow the flow, join the end points, number the objects; exact for any blocks and axes.

region.py  the nested boxes of a block                                 Region, region_of
follow.py  where every foreground pixel of a block ends                follow_flow, EndPoints
           walk_plane.py, walk_space.py: the two inner kernels, the only code for a fixed number of axes
links.py, sinks.py, borders.py   connected components of end points; when two components are one object
tables.py  area, first pixel, box and peak of the objects of a block          core_tables
merge.py   components to objects, in a block and across blocks         local_objects, Unifier, number_objects
plan.py    the tasks, from stored fields to a stored label image       integrate, plan_outline, merge_blocks
refine.py  fill holes, and filter objects by their flow                refine_labels, RefineConfig
refine_plan.py  the same for stored labels                             plan_inspect, number_refined
audit.py   recompute windows on the seams and compare them             audit_seams
watershed/ another rule, for models that give h/v maps of planes       hover_labels, plan_flood
"""
