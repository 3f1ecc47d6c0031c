"""How work is run."""

from __future__ import annotations

from dataclasses import dataclass

from sketchscale.errors import InputError
from sketchscale.io.endpoint import check_endpoint
from sketchscale.options.groups import RUNNING
from sketchscale.settings import Options, check, option

__all__ = ["Execution"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution(Options):
    """How work is run; no field here changes a result."""

    engine: str = option("threads", "serial, threads, processes, dask or ray.", panel=RUNNING)
    workers: int | None = option(
        None, "Tasks at once; the usable cores, or what the cluster has, when not given.", at_least=1, panel=RUNNING
    )
    address: str | None = option(None, "Of a Dask scheduler or a Ray cluster; else one is started here.", panel=RUNNING)
    gpus_per_worker: float | None = option(
        None, "Of each worker that runs a network on cuda; 0.25 puts four on one GPU.", above=0, panel=RUNNING
    )
    block: int = option(
        2048, "Side of a block, cut to whole write units; no effect on results.", unit="px", at_least=1, panel=RUNNING
    )
    memory_gb: float | None = option(
        None, "Refuse a plan that needs more, before it starts.", unit="GB", above=0, flag="--memory", panel=RUNNING
    )
    scratch: str | None = option(
        None,
        "Folder or address for arrays between stages, that all workers see; else beside the output.",
        panel=RUNNING,
    )
    attempts: int = option(
        3, "How often a task may run whose worker dies or whose storage fails.", at_least=1, panel=RUNNING
    )
    deadline_s: float | None = option(
        None,
        "Of one attempt of a task; else as long as its worker lives.",
        unit="s",
        above=0,
        flag="--deadline",
        panel=RUNNING,
    )
    wait_s: float = option(
        60.0,
        "How long a store or a cluster may fail to answer before the run gives up.",
        unit="s",
        above=0,
        flag="--wait",
        panel=RUNNING,
    )
    endpoint: str | None = option(
        None, "Of S3-compatible storage: http(s)://host:port; AWS_ENDPOINT_URL_S3 when not given.", panel=RUNNING
    )
    resume: bool = option(False, "Go on with what an interrupted run finished.", panel=RUNNING)
    overwrite: bool = option(False, "Remove what is there first.", panel=RUNNING)

    def __post_init__(self) -> None:
        check(self)
        if self.resume and self.overwrite:
            raise InputError("--resume and --overwrite exclude each other: keep what is there, or remove it")
        if self.endpoint is not None:
            check_endpoint(self.endpoint)

    @property
    def budget_bytes(self) -> int | None:
        return None if self.memory_gb is None else int(self.memory_gb * 1e9)
