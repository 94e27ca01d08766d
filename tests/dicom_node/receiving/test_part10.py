"""The head of a stored file."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.receiving.instance import ReceivedInstance
from dicom_node.receiving.part10 import IMPLEMENTATION_CLASS_UID, part10_prefix


def _received(ds: Any, data_set: Any, syntax: Any, **changes: Any) -> Any:
    values = dict(
        sop_class_uid=str(ds.SOPClassUID), sop_instance_uid=str(ds.SOPInstanceUID), transfer_syntax_uid=str(syntax),
        study_instance_uid=str(ds.StudyInstanceUID), series_instance_uid=str(ds.SeriesInstanceUID), attributes={},
        calling_ae="CT1", called_ae="CAMNODE", address="127.0.0.1", encoded=data_set,
    )  # fmt: skip
    return ReceivedInstance(**{**values, **changes})


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_prefix_and_verbatim_bytes_are_a_file(instance: Any, encoded: Callable[..., Any], syntax: Any) -> None:
    ds = instance()
    data_set = encoded(ds, syntax)
    stored = part10_prefix(_received(ds, data_set, syntax)) + data_set
    assert stored[:132] == bytes(128) + b"DICM"
    assert stored.endswith(data_set)
    read = dcmread(BytesIO(stored))
    assert read.file_meta.TransferSyntaxUID == syntax
    assert read.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert read.file_meta.MediaStorageSOPClassUID == ds.SOPClassUID
    assert read.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert read.file_meta.SourceApplicationEntityTitle == "CT1"
    assert read.file_meta.SendingApplicationEntityTitle == "CT1"
    assert read.file_meta.ReceivingApplicationEntityTitle == "CAMNODE"
    assert read.PatientID == "P-1"
    assert read.PixelData == b"\1\2\3\4"


def test_group_length_counts_exactly(instance: Any) -> None:
    ds = instance()
    prefix = part10_prefix(_received(ds, b"", ExplicitVRLittleEndian))
    assert prefix[132:140] == b"\x02\x00\x00\x00UL\x04\x00"
    assert int.from_bytes(prefix[140:144], "little") == len(prefix) - 144


def test_a_nameless_peer_gets_a_title_that_may_be_written(instance: Any) -> None:
    ds = instance()
    read = dcmread(
        BytesIO(part10_prefix(_received(ds, b"", ExplicitVRLittleEndian, calling_ae=" ", called_ae=""))), force=True
    )
    assert read.file_meta.SourceApplicationEntityTitle == "ANY"
