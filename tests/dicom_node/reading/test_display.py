"""The functions of the grey scale, against numbers worked out from the standard."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicom_node.errors import UnsupportedObject
from dicom_node.reading.display import LookupTable, Window, first_window, table_entries


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        ("LINEAR", 0, 0.0),
        ("LINEAR", 2047.5, 0.5),
        ("LINEAR", 4095, 1.0),
        ("LINEAR", 1024, 1024 / 4095),
        ("LINEAR_EXACT", 2048, 0.5),
        ("LINEAR_EXACT", 1024, 0.25),
        ("LINEAR_EXACT", -5, 0.0),
        ("SIGMOID", 2048, 0.5),
        ("SIGMOID", 3072, 1 / (1 + np.exp(-1))),
        ("SIGMOID", -1e9, 0.0),
    ],
)
def test_window_functions(function: str, value: float, expected: float) -> None:
    shown = Window(centre=2048, width=4096, function=function)(np.array([value], dtype=np.float64))
    assert shown[0] == pytest.approx(expected, abs=1e-12)


def test_a_window_of_width_one_is_a_step() -> None:
    shown = Window(centre=100, width=1, function="LINEAR")(np.array([99.0, 99.5, 100.0]))
    assert shown.tolist() == [0, 0, 1]


@pytest.mark.parametrize("width", [0, -1, float("nan"), None])
def test_an_unusable_window_is_no_window(width: float | None) -> None:
    ds = Dataset()
    ds.WindowCenter, ds.WindowWidth = 1, width
    assert first_window(ds) is None


def test_an_unknown_voi_function_is_refused() -> None:
    ds = Dataset()
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = 1, 2, "MAGIC"
    with pytest.raises(UnsupportedObject, match="MAGIC"):
        first_window(ds)


def test_values_outside_a_table_get_its_ends() -> None:
    table = LookupTable(first=10, entries=np.array([5.0, 6.0, 7.0]), bits=8)
    assert table(np.array([-3.0, 10.0, 11.0, 12.0, 99.0])).tolist() == [5, 5, 6, 7, 7]


def test_table_entries_of_every_encoding() -> None:
    little, big = Dataset(), Dataset()
    little.set_original_encoding(False, True)
    big.set_original_encoding(False, False)
    assert table_entries(b"\1\2\3\0", 3, 8, little).tolist() == [1, 2, 3]
    assert table_entries(b"\1\0\2\0", 2, 16, little).tolist() == [1, 2]
    assert table_entries(b"\0\1\0\2", 2, 16, big).tolist() == [1, 2]
    assert table_entries([1, 2, -1], 3, 16, little).tolist() == [1, 2, 65535]
    with pytest.raises(UnsupportedObject, match="2 of 3 entries"):
        table_entries(b"\1\0\2\0", 3, 16, little)
