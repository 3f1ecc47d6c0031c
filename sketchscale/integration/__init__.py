"""Fields to objects: follow the flow, join the end points, number the objects; exact for any blocks.

euler.py   where every foreground pixel of one box ends                follow_flow, IntegrationConfig
merge.py   end points to objects, in a block and across blocks         link_sinks, Unifier, number_objects
plan.py    the tasks, from stored fields to a stored label image       integrate, plan_outline, merge_blocks
refine.py  holes filled, and objects filtered by their flow              refine_labels, RefineConfig
refine_plan.py  the same for stored labels                           plan_inspect, number_refined
volume.py, volume_merge.py, volume_plan.py, volume_audit.py   the same for volumes (z, y, x)
audit.py   windows on the seams recomputed in one piece and compared   audit_seams
"""
