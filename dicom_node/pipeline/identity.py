"""A study's patient and identifiers as reception kept them, for answers about files that can't be read; reads no file.

Texts were decoded at reception, whatever character set they came in; here they are UTF-8 (PS3.3 C.12.1.1.2).
"""

from collections.abc import Mapping
from typing import Any, Final

from pydicom.dataset import Dataset

KEPT: Final = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
    "InstitutionName",
    "Modality",
    "BodyPartExamined",
    "Laterality",
    "ImageLaterality",
)
"""Attributes that say whose study it is; none of them describes pixels."""


def header_of(identity: Mapping[str, Any]) -> Dataset:
    """A header with what is known of an instance without its file.

    Parameters
    ----------
    identity : mapping of DICOM keyword to plain value
        As `dicom_node.receiving.header` keeps them; a keyword that is not in `KEPT`, or holds no single text, is
        passed over.
    """
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    for keyword in KEPT:
        value = identity.get(keyword)
        if isinstance(value, str) and value:
            setattr(header, keyword, value)
    return header
