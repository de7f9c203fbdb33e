"""The record of one net of a sweep: what is read is what was written, or the file is refused."""

import json

import pytest

from fluvial.audits.cells import Cell, read_cell, write_cell


def test_records_of_a_sweep_hold_numbers_alone(tmp_path):
    numbers = (
        4,
        8,
        0,
        10,
        99,
        [0.1],
        [1.0],
        1.5,
        0.1,
        1.7,
        3.0,
        0.9,
        1,
        10,
        0.05,
        {"values": 1.0},
        {"values": 2.0},
        1.0,
    )
    cell, file = Cell(*numbers), tmp_path / "c.json"
    write_cell(file, cell)
    assert read_cell(file) == cell
    whole = json.loads(file.read_text())
    for key in whole:
        for wrong in (None, "x", [None], {"a": "b"}, float("nan"), 10**400, True):
            file.write_text(json.dumps({**whole, key: wrong}))
            with pytest.raises(ValueError, match=r"c\.json is damaged; remove it"):
                read_cell(file)
    file.write_text("[" * 10**5)
    with pytest.raises(ValueError, match=r"c\.json is damaged; remove it"):
        read_cell(file)
