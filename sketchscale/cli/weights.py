"""Commands on models as files: model list/show/import/export."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sketchscale.cli import options as opt

__all__ = ["register"]

ModelAddress = Annotated[
    str, typer.Argument(help="A model folder, the name of a shipped model, or a file of Cellpose 1-3 or Omnipose.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Models: list, show, and files of Cellpose and Omnipose in and out.", no_args_is_help=True)
    for command in (model_list, model_show, model_import, model_export):
        group.command(command.__name__.removeprefix("model_"))(command)
    app.add_typer(group, name="model")


def model_list(json: opt.Json = False) -> None:
    """List the models of the package and those in the folder SKETCHSCALE_MODELS, which `--model` takes by name."""
    from sketchscale.workflow.models import list_models

    found = list_models()
    opt.show(found, json, lambda: "\n".join(_summary(model) for model in found))


def model_show(model: ModelAddress, json: opt.Json = False) -> None:
    """Show a model: its network, settings, and how it was made."""
    from sketchscale.workflow.models import show_model

    found = show_model(model)
    opt.show(found, json, lambda: _lines(found))


def model_import(
    file: Annotated[str, typer.Argument(help="A file of Cellpose 1-3 or Omnipose.")],
    out: Annotated[str, typer.Option("--out", help="Folder of the model.")],
    padding: Annotated[
        str | None, typer.Option("--padding", help="zeros, or reflect (Omnipose from 1.0); else by the file's name.")
    ] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="cellpose or omnipose; else by outputs and name.")] = None,
    overwrite: opt.Overwrite = False,
    json: opt.Json = False,
) -> None:
    """Write weights of Cellpose or Omnipose as a model folder. `--model` and `--init` read such files directly, too."""
    from sketchscale.workflow.models import import_model

    found = import_model(file, out, padding=padding, kind=kind, overwrite=overwrite)
    opt.show(found, json, lambda: f"{out}: {found['notes']}")


def model_export(
    model: ModelAddress,
    to: Annotated[str, typer.Option("--to", help="cellpose or omnipose.")],
    out: Annotated[str, typer.Option("--out", help="The file to write.")],
    overwrite: opt.Overwrite = False,
    json: opt.Json = False,
) -> None:
    """Write a model as a file that Cellpose 3 or Omnipose load, and print what to set there."""
    from sketchscale.workflow.models import export_model

    done = export_model(model, out, to=to, overwrite=overwrite)
    opt.show(done, json, lambda: "\n".join([f"{out}: for {to}", *(f"  set {line}" for line in done["set"])]))


def _summary(model: dict[str, Any]) -> str:
    """Return a line with name and size of a model, and one each for its use, its scores and its licence."""
    least, most = model["channels"]
    channels = f"{most} channel{'s' * (most > 1)}" if least == most else f"{least} to {most} channels"
    head = (
        f"{model['name']}{'' if model['shipped'] else ' (own)'}: {channels}, {model['parameters']} parameters, "
        f"{model['bytes'] / 1e6:.1f} MB, objects of {model['diameter']:g} px, {model['sha256'][:12]}"
    )
    scores = ", ".join(f"{name} {value}" for name, value in model["scores"].items())
    below = {"for": model["for"], "AP 0.5 / 0.75": scores, "licence": model["licence"]}
    return "\n".join([head, *(f"  {name}: {text}" for name, text in below.items() if text)])


def _lines(found: dict[str, Any]) -> str:
    """Return a line for each entry, and of the provenance those that are short (all of it is in `--json`)."""
    made = {f"provenance.{key}": value for key, value in found["provenance"].items() if len(str(value)) < 200}
    lines = {**found["network"], **found, **made}
    return "\n".join(f"{key}: {value}" for key, value in lines.items() if key not in ("network", "provenance"))
