"""The Ray engine, on a cluster that is started on this machine or joined.

calls.py     code that runs in the workers: one function, and the actor that keeps a network warm
cluster.py   start or join a cluster, check that it answers, refuse impossible requests
pool.py      warm actors: which runs which call, and what happens when one dies
engine.py    RayEngine: turns calls into futures
"""

from sketchscale.engine.ray.engine import RayEngine

__all__ = ["RayEngine"]
