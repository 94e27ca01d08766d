"""What may be negotiated."""

from typing import Any

import pytest
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)
from pynetdicom import AllStoragePresentationContexts, build_context

from dicom_node.receiving.contexts import TRANSFER_SYNTAXES, acceptable, is_storage, storage_by_name

PRIVATE = "1.3.12.2.1107.5.9.1"
UNKNOWN = "1.2.840.10008.5.1.4.1.1.999999"


@pytest.mark.parametrize("uid", [context.abstract_syntax for context in AllStoragePresentationContexts])
def test_every_storage_class_is_storage(uid: Any) -> None:
    assert is_storage(uid)


@pytest.mark.parametrize(
    ("uid", "expected"),
    [
        (PRIVATE, True),
        (UNKNOWN, True),
        ("1.2.840.10008.5.1.4.1.1.6", True),  # Ultrasound Image Storage (Retired)
        ("1.2.840.10008.1.1", False),  # Verification
        ("1.2.840.10008.1.20.1", False),  # Storage Commitment Push Model
        ("1.2.840.10008.5.1.1.1", False),  # Basic Film Session
        ("1.2.840.10008.5.1.4.1.2.2.1", False),  # Study Root FIND
        ("1.2.840.10008.5.1.4.31", False),  # Modality Worklist
        ("1.2.840.10008.1.2", False),  # a transfer syntax
    ],
)
def test_other_classes(uid: Any, expected: Any) -> None:
    assert is_storage(uid) is expected


def test_every_transfer_syntax_of_a_data_set_is_taken() -> None:
    assert {
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        JPEG2000Lossless,
    } < TRANSFER_SYNTAXES
    assert len(TRANSFER_SYNTAXES) == 53
    assert not any(uid.startswith("1.2.840.10008.1.2.7") for uid in TRANSFER_SYNTAXES)


def test_contexts_keep_the_requestors_order_but_prefer_explicit_vr() -> None:
    proposed = [
        build_context(CTImageStorage, [ImplicitVRLittleEndian, JPEG2000Lossless, ExplicitVRLittleEndian]),
        build_context(PRIVATE, [JPEG2000Lossless, "1.2.3.4.5"]),
        build_context("1.2.840.10008.1.20.1", [ImplicitVRLittleEndian]),
        build_context(UNKNOWN, ["1.2.3.4.5"]),
    ]
    supported = {context.abstract_syntax: context.transfer_syntax for context in acceptable(proposed)}
    assert supported == {
        CTImageStorage: [JPEG2000Lossless, ExplicitVRLittleEndian, ImplicitVRLittleEndian],
        PRIVATE: [JPEG2000Lossless],
    }


def test_contexts_of_one_class_are_joined() -> None:
    proposed = [build_context(CTImageStorage, uid) for uid in (ExplicitVRLittleEndian, JPEG2000Lossless)]
    (context,) = acceptable(proposed)
    assert context.transfer_syntax == [ExplicitVRLittleEndian, JPEG2000Lossless]


def test_only_classes_of_an_unknown_service_are_named_storage() -> None:
    proposed = [
        build_context(uid, ExplicitVRLittleEndian) for uid in (CTImageStorage, PRIVATE, UNKNOWN, "1.2.840.10008.1.1")
    ]
    named = storage_by_name(proposed)
    assert set(named) == {PRIVATE, UNKNOWN}
    assert named[PRIVATE].service_class_uid == "1.2.840.10008.4.2"
