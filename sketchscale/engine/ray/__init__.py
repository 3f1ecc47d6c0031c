"""The plan on a Ray cluster: started on this machine, or joined.

calls.py     what runs in the workers: one function, and the actor that keeps a network warm
cluster.py   start, join, ask whether it answers, refuse what it can never do
pool.py      warm actors: who runs what, and what happens when one dies
engine.py    RayEngine: calls into futures
"""

from sketchscale.engine.ray.engine import RayEngine

__all__ = ["RayEngine"]
