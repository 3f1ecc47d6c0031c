"""Commands are made from the fields of option records: a new option is one field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import TypeAdapter
from typer.main import get_command
from typer.testing import CliRunner

import sketchscale.options
from sketchscale.cli import app, run
from sketchscale.cli.flags import Only, Required, Without, command, flags_of
from sketchscale.config import parse
from sketchscale.errors import InputError
from sketchscale.options import Execution, NextOptions, SegmentOptions
from sketchscale.settings import option, options_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Wider(SegmentOptions):
    """Segment with options more."""

    sharpness: float = option(0.5, "Raise edges before the network sees them.", unit="px", above=0, at_most=2)
    mood: Literal["calm", "wild"] | None = option(None, "How it is done.")
    tags: dict[str, str] = option(factory=dict, help="Words to keep.", flag="--tag")
    hidden: int = option(1, "Not for the command line.", flag=None)


@pytest.fixture
def called() -> tuple[Any, list[Any]]:
    """A command with the new options, and what it was called with."""
    found: list[Any] = []
    scratch_app = typer.Typer()

    def scratch(options: Wider, execution: Annotated[Execution, Only("block")]) -> None:
        found.append((options, execution))

    scratch.__annotations__ = {"options": Wider, "execution": Annotated[Execution, Only("block")], "return": None}
    command(scratch_app)(scratch)
    return scratch_app, found


def test_a_new_option_is_one_field(called: tuple[Any, list[Any]]) -> None:
    scratch_app, found = called
    words = ["--sharpness", "1.5", "--min-size", "30", "--tag", "who=me", "--tag", "a=b=c", "--channel", "dapi"]
    result = CliRunner().invoke(scratch_app, [*words, "--mood", "wild", "--block", "64"])
    assert result.exit_code == 0, result.output
    tags = {"who": "me", "a=b": "c"}
    assert found == [
        (Wider(sharpness=1.5, min_size=30, tags=tags, mood="wild", channels=("dapi",)), Execution(block=64))
    ]
    help_text = " ".join(CliRunner().invoke(scratch_app, ["--help"], env={"TERMINAL_WIDTH": "200"}).output.split())
    assert "--sharpness" in help_text
    assert "--hidden" not in help_text
    for flag in flags_of(Wider):
        if flag.name == "--sharpness":
            assert flag.help == "Raise edges before the network sees them. (more than 0 and at most 2 px)"
        if flag.name == "--mood":
            assert flag.help == "How it is done. (calm or wild)"
    schema = TypeAdapter(Wider).json_schema()["properties"]["sharpness"]
    assert schema["description"] == "Raise edges before the network sees them."
    assert (schema["exclusiveMinimum"], schema["maximum"], schema["default"]) == (0, 2, 0.5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sharpness": 0.0}, "sharpness 0.0; expected: more than 0 and at most 2 px; to fix: change --sharpness"),
        ({"sharpness": float("nan")}, "sharpness nan; expected: more than 0 and at most 2 px"),
        ({"sharpness": "much"}, "sharpness much; expected: more than 0 and at most 2 px"),
        ({"sharpness": None}, "sharpness None; expected: more than 0 and at most 2 px"),
        ({"mood": "clam"}, "unknown mood 'clam'; did you mean 'calm'"),
        ({"min_size": -1}, "min_size -1; expected: at least 0 px"),
        ({"flips": 3}, "flips 3; expected: 1 or 4 or 8"),
        ({"threshold": float("inf")}, "threshold inf; expected: a finite number"),
        ({"tile": True}, "tile True; expected: at least 16 px"),
    ],
)
def test_a_value_is_refused_in_the_same_words_wherever_it_comes_from(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Wider(**given)
    assert message in str(caught.value)
    with pytest.raises(InputError):
        parse(Wider, given, source="options")


def test_a_command_says_a_wrong_value_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["segment", "a.zarr", "--min-size", "-1"]) == 2
    said = "error: options: min_size -1; expected: at least 0 px; to fix: change --min-size\n"
    assert capsys.readouterr().err == said
    for word in ("Tumor", "=foreground"):
        assert run(["sketch", "show", "a.jsonl", "--class", word]) == 2
        assert "expected: NAME=VALUE" in capsys.readouterr().err


def test_fields_can_be_left_out_and_required() -> None:
    names = [flag.name for flag in flags_of(Execution, Without("block", "engine"), Required("scratch"))]
    assert "--workers" in names
    assert not {"--block", "--engine"} & set(names)
    (scratch,) = flags_of(Execution, Only("scratch"), Required("scratch"))
    assert scratch.parameter.default is scratch.parameter.empty
    inner = {flag.name: flag.path for flag in flags_of(NextOptions)}
    assert inner["--model"] == ("segment", "model")
    assert "--min-size" not in inner


def test_plan_takes_every_option_of_segment() -> None:
    all_commands: Any = get_command(app)
    segment, plan = ({p.name for p in all_commands.commands[name].params} for name in ("segment", "plan"))
    assert segment - plan == {"resume", "overwrite", "dry_run"}


@pytest.mark.parametrize("name", sketchscale.options.__all__)
def test_every_option_of_every_public_class_says_what_it_does(name: str) -> None:
    kind = getattr(sketchscale.options, name)
    declared = options_of(kind)
    assert set(declared) == set(kind.__dataclass_fields__)
    for field in declared.values():
        assert len(field.metadata["description"]) > 8
        assert field.metadata["description"].endswith(".")
    flags = [flag.name for flag in flags_of(kind) if not flag.about.argument]
    assert len(flags) == len(set(flags))
