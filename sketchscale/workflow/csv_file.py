"""Write rows as a CSV file that is complete or absent, with the same line ends on every system."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from sketchscale.io.stores.output_files import put_file

__all__ = ["put_csv"]


def put_csv(out: str, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """Write a header and rows; return the path. None becomes an empty cell.

    Raises:
        OutputError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    put_file(out, text.getvalue().encode())
    return out
