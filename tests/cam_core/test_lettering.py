"""Tests of the writing: nothing that the font can't write, nothing wider than its room."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cam_core.lettering import broken, font, width, writable


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("Pleural effusion", "Pleural effusion"),
        ("Épanchement pleural à gauche", "Epanchement pleural a gauche"),
        ("Größe 3 × 4 mm²", "Grosse 3 x 4 mm2"),
        ("≥ 50 %", ">= 50 %"),
        ("胸水", "??"),
        ("two\nlines\there", "two lines here"),
    ],
)
def test_only_glyphs_that_the_font_has(text: str, written: str) -> None:
    assert writable(text) == written


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=80), room=st.integers(60, 400))
def test_lines_fit_their_room_and_lose_nothing(text: str, room: int) -> None:
    missing = bytes(font(40).getmask("\uffff"))
    lines = broken(text, 20, room)
    for line in lines:
        assert width(line, 20) <= room
        assert all(one == " " or bytes(font(40).getmask(one)) != missing for one in line)
    assert "".join(lines).replace(" ", "") == writable(text).replace(" ", "")
