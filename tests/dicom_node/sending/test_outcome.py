"""Which answers are final."""

from typing import Any

import pytest

from dicom_node.sending.outcome import AssociationKind, ObjectOutcomeKind, classify_rejection, classify_status

TAKEN, PERMANENT, TRANSIENT = ObjectOutcomeKind.TAKEN, ObjectOutcomeKind.PERMANENT, ObjectOutcomeKind.TRANSIENT


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (0x0000, TAKEN), (0x0111, TAKEN), (0xB000, TAKEN), (0xB006, TAKEN), (0xB007, TAKEN),
        (0x0117, PERMANENT), (0x0122, PERMANENT), (0x0124, PERMANENT), (0x0210, PERMANENT), (0x0211, PERMANENT),
        (0x0212, PERMANENT), (0xA900, PERMANENT), (0xA9FF, PERMANENT), (0xC000, PERMANENT), (0xCFFF, PERMANENT),
        (0xA700, TRANSIENT), (0xA7FF, TRANSIENT), (0x0110, TRANSIENT), (None, TRANSIENT),
        (0xB001, TRANSIENT), (0xFF00, TRANSIENT), (0xFE00, TRANSIENT), (0xA800, TRANSIENT), (0xD000, TRANSIENT),
        (0x0001, TRANSIENT),
    ],
)  # fmt: skip
def test_every_status_has_its_kind_and_words(status: Any, kind: Any) -> None:
    assert classify_status(status)[0] is kind
    assert classify_status(status)[1]


def test_words_name_the_code_of_a_failure() -> None:
    assert "0xA700" in classify_status(0xA700)[1]
    assert "not known" in classify_status(None)[1]


@pytest.mark.parametrize(
    ("codes", "permanent"),
    [
        ((1, 1, 1), True), ((1, 1, 2), True), ((1, 1, 3), True), ((1, 1, 7), True), ((1, 2, 2), True),
        ((1, 2, 1), True),
        ((2, 1, 1), False), ((2, 2, 1), False), ((2, 3, 1), False), ((2, 3, 2), False),
        ((2, 1, 3), True), ((1, 3, 2), False), ((None, None, None), False), ((2, 1, 9), False),
    ],
)  # fmt: skip
def test_every_rejection_is_final_or_not(codes: Any, permanent: Any) -> None:
    outcome = classify_rejection(*codes)
    assert outcome.permanent is permanent
    assert outcome.kind is AssociationKind.REJECTED
    assert outcome.words.startswith("association rejected: ")
