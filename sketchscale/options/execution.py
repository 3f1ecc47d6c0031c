"""Options of how work is run."""

from __future__ import annotations

from dataclasses import dataclass

from sketchscale.errors import InputError
from sketchscale.io.stores.settings import check_endpoint
from sketchscale.options.groups import running
from sketchscale.settings import Options, check

__all__ = ["Execution"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution(Options):
    """How work is run; no field changes a result."""

    engine: str = running("threads", "serial, threads, processes, dask or ray.")
    workers: int | None = running(
        None, "Tasks that run at once; by default the usable cores, or those of the cluster.", at_least=1
    )
    address: str | None = running(
        None, "Address of a Dask scheduler or a Ray cluster; by default, one is started here."
    )
    gpus_per_worker: float | None = running(
        None, "GPUs of each worker that runs a network on cuda; 0.25 puts four workers on one GPU.", above=0
    )
    block: int = running(
        2048, "Side of a block, rounded to whole write units; no effect on results.", unit="px", at_least=1
    )
    memory_gb: float | None = running(
        None, "Refuse a plan that needs more memory, before it starts.", unit="GB", above=0
    )
    scratch: str | None = running(
        None, "Folder or address for arrays between stages, which all workers can read; by default next to the output."
    )
    attempts: int = running(3, "Number of attempts for a task whose worker dies or whose storage fails.", at_least=1)
    deadline_s: float | None = running(
        None, "Time limit of one attempt of a task; by default, as long as its worker lives.", unit="s", above=0
    )
    wait_s: float = running(
        60.0, "How long a store or a cluster may not answer before the run gives up.", unit="s", above=0
    )
    endpoint: str | None = running(
        None, "Address of S3-compatible storage: http(s)://host:port; AWS_ENDPOINT_URL_S3 by default."
    )
    resume: bool = running(False, "Continue an interrupted run; finished tasks are skipped.")
    overwrite: bool = running(False, "Replace existing output.")

    def __post_init__(self) -> None:
        check(self)
        if self.resume and self.overwrite:
            raise InputError("--resume and --overwrite exclude each other: keep what is there, or remove it")
        if self.endpoint is not None:
            check_endpoint(self.endpoint)

    @property
    def budget_bytes(self) -> int | None:
        """`memory_gb` in bytes; None for no limit."""
        return None if self.memory_gb is None else int(self.memory_gb * 1e9)
