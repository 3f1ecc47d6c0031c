"""Write the goldens anew: `python -m tests.golden.make`. Only where results are meant to change, and said in CHANGELOG.

integration.json   SHA-256 of the labels of every case, the same for every block
measurement.json   every column of the tables
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from tests.golden.cases import LABELS, REFINED, TABLES, digest, labels_of, table_of

FOLDER = Path(__file__).parent


def read(name: str) -> dict[str, Any]:
    """One of the files."""
    return dict(json.loads((FOLDER / f"{name}.json").read_text()))


def _write(name: str, content: dict[str, Any]) -> None:
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    (FOLDER / f"{name}.json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    cases = {**LABELS, **REFINED}
    _write("integration", {name: digest(labels_of(*case)) for name, case in cases.items()})
    with tempfile.TemporaryDirectory() as folder:
        tables = {name: table_of(Path(folder), *case, block=64).to_pydict() for name, case in TABLES.items()}
    _write("measurement", {f"{name}/{column}": values for name, t in tables.items() for column, values in t.items()})
