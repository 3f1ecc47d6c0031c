"""Tables of given labels are those that were stored once.

Whole numbers, booleans and missing values are the same on any processor. Of other numbers the last bits are not: roots,
logarithms and sums of many may be rounded otherwise there, so they are compared to 1e-12 of their size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.golden.cases import TABLES, table_of
from tests.golden.make import read


@pytest.mark.parametrize("block", [64, 16])
@pytest.mark.parametrize("name", TABLES)
def test_tables_are_the_stored_ones_whatever_the_blocks(tmp_path: Path, name: str, block: int) -> None:
    stored = {key.split("/", 1)[1]: values for key, values in read("measurement").items() if key.startswith(f"{name}/")}
    table = table_of(tmp_path, *TABLES[name], block=block).to_pydict()
    assert [column for column in table if column in stored] == list(stored), "new columns may come between"
    for column, values in ((column, table[column]) for column in stored):
        if any(isinstance(value, float) for value in stored[column]):
            found, expected = (np.array(v, float) for v in (values, stored[column]))  # missing ones are NaN
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=0, err_msg=column)
        else:
            assert values == stored[column], column
