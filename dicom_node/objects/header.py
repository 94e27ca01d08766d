"""Patient, study, series and equipment of every result, the former two verbatim; knows no pixels and no content."""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.tag import Tag

from dicom_node.provenance import CONCEPTS, SERIES_NUMBERS, Provenance, derived_uid, series_uid
from dicom_node.reading.header import Header

PATIENT: Final = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "PatientBirthDate",
    "PatientBirthTime",
    "PatientSex",
    "OtherPatientIDs",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "PatientComments",
    "PatientSpeciesDescription",
    "PatientBreedDescription",
    "ResponsiblePerson",
    "ResponsibleOrganization",
)
STUDY: Final = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
    "StudyDescription",
    "ProcedureCodeSequence",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
)
DEIDENTIFICATION: Final = ("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence")
INSTITUTION: Final = ("InstitutionName", "InstitutionAddress")
TYPE_2: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Required, possibly empty (PS3.3 C.7.1.1, C.7.2.1)."""

POSITIVE_ONLY: Final = ("PatientSize", "PatientWeight")
TIMEZONE: Final = re.compile(r"[+-](0\d|1[0-4])[0-5]\d")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What tells one result from the others of its job."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    instance_number: int
    modality: str
    series_description: str


def common_header(source: Dataset, identity: Identity, provenance: Provenance) -> Dataset:
    """A new data set with all that results share.

    Texts of the source are put in as the bytes in which they came, under the source's own Specific Character Set, so
    that they leave byte for byte as received, whatever that set claims. Text that this node adds is ASCII, which is the
    same in every character set of PS3.3 C.12.1.1.2.

    Parameters
    ----------
    source : Dataset
        A `Header` gives texts back verbatim; any other data set gives them re-encoded.
    identity : Identity
    provenance : Provenance

    Raises
    ------
    KeyError
        Unknown kind of result.
    """
    result = Dataset()
    copy_elements(source, result, ("SpecificCharacterSet", *PATIENT, *STUDY, *INSTITUTION))
    _complete_patient(source, result)
    for keyword in TYPE_2:
        if keyword not in result:
            setattr(result, keyword, None)
    zone = _source_zone(source)
    if zone is not None:
        result.TimezoneOffsetFromUTC = source.TimezoneOffsetFromUTC
    _stamp(result, identity, provenance, zone)
    _equipment(result, provenance)
    result.ContributingEquipmentSequence = contributing_equipment(source, provenance, zone)
    return result


def copy_elements(source: Dataset, target: Dataset, keywords: Iterable[str]) -> None:
    """Copy elements that the source has, texts as the bytes in which they came."""
    verbatim = source.verbatim if isinstance(source, Header) else {}
    for keyword in keywords:
        tag = tag_for_keyword(keyword)
        if tag is None or tag not in source:
            continue
        kept = verbatim.get(tag)
        if kept is not None and kept[0] == dictionary_VR(tag):
            padded = kept[1] + b" " * (len(kept[1]) % 2)
            target[tag] = RawDataElement(Tag(tag), kept[0], len(padded), padded, 0, False, True)
        else:
            element = source[tag]
            target[tag] = DataElement(tag, element.VR, deepcopy(element.value), already_converted=True)


def _complete_patient(source: Dataset, result: Dataset) -> None:
    for keyword in POSITIVE_ONLY:
        if keyword in result and not (result[keyword].value or 0) > 0:
            delattr(result, keyword)
    if source.get("PatientIdentityRemoved") in ("YES", "NO"):
        copy_elements(source, result, DEIDENTIFICATION)
        unexplained = not (source.get("DeidentificationMethod") or source.get("DeidentificationMethodCodeSequence"))
        if source.PatientIdentityRemoved == "YES" and unexplained:
            result.DeidentificationMethod = "Not stated by the source"


def _source_zone(source: Dataset) -> timezone | None:
    value = str(source.get("TimezoneOffsetFromUTC") or "").strip()
    if not TIMEZONE.fullmatch(value):
        return None
    minutes = int(value[1:3]) * 60 + int(value[3:])
    return timezone(timedelta(minutes=-minutes if value[0] == "-" else minutes))


def local_time(provenance: Provenance, zone: timezone | None) -> datetime:
    """The job's time as the object's dates and times state it: in the source's time zone where it names one."""
    return provenance.created.astimezone(zone) if zone is not None else provenance.created


def _stamp(result: Dataset, identity: Identity, provenance: Provenance, zone: timezone | None) -> None:
    created = local_time(provenance, zone)
    day, time = created.strftime("%Y%m%d"), created.strftime("%H%M%S")
    result.SOPClassUID = identity.sop_class_uid
    result.SOPInstanceUID = identity.sop_instance_uid
    result.SeriesInstanceUID = series_uid(provenance, identity.kind)
    result.SeriesNumber = SERIES_NUMBERS[identity.kind]
    result.InstanceNumber = identity.instance_number
    result.Modality = identity.modality
    result.SeriesDescription = plain(identity.series_description, 64)
    for prefix in ("InstanceCreation", "Series", "Content"):
        setattr(result, f"{prefix}Date", day)
        setattr(result, f"{prefix}Time", time)


def _equipment(result: Dataset, provenance: Provenance) -> None:
    equipment = provenance.equipment
    result.Manufacturer = plain(equipment.manufacturer, 64)
    result.ManufacturerModelName = plain(equipment.model_name, 64)
    result.SoftwareVersions = [plain(equipment.software_version, 64), plain(provenance.model, 64)]
    result.DeviceSerialNumber = plain(equipment.device_serial_number, 64)
    result.StationName = plain(equipment.station_name, 16)


def contributing_equipment(source: Dataset, provenance: Provenance, zone: timezone | None) -> list[Dataset]:
    """This node with its model, then the source's own device (PS3.3 C.12.1, CID 7005)."""
    created = local_time(provenance, zone)
    equipment = provenance.equipment
    node = Dataset()
    node.PurposeOfReferenceCodeSequence = [code_item(CONCEPTS["processing equipment"])]
    node.Manufacturer = plain(equipment.manufacturer, 64)
    node.ManufacturerModelName = plain(equipment.model_name, 64)
    node.SoftwareVersions = [plain(equipment.software_version, 64), plain(provenance.model, 64)]
    node.DeviceSerialNumber = plain(equipment.device_serial_number, 64)
    node.StationName = plain(equipment.station_name, 16)
    node.DeviceUID = derived_uid("device", equipment.device_uid, provenance.model, provenance.model_sha256)
    node.ContributionDateTime = created.strftime("%Y%m%d%H%M%S%z")
    node.ContributionDescription = plain(
        f"{provenance.model}, weights sha256 {provenance.model_sha256}, route {provenance.route}", 1024
    )
    items = [node]
    if source.get("Manufacturer"):
        device = Dataset()
        device.PurposeOfReferenceCodeSequence = [code_item(CONCEPTS["acquisition equipment"])]
        wanted = ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber", "StationName")
        copy_elements(source, device, [keyword for keyword in wanted if source.get(keyword)])
        items.append(device)
    return items


def code_item(concept: Code) -> Dataset:
    """A code sequence item (PS3.3 section 8)."""
    item = Dataset()
    item.CodeValue = concept.value
    item.CodingSchemeDesignator = concept.scheme_designator
    item.CodeMeaning = plain(concept.meaning, 64)
    return item


def body_part(source: Dataset, declared: Iterable[str]) -> str | None:
    """Body Part Examined as a valid CS value: the source's, else the first that the model's card declares."""
    for value in (source.get("BodyPartExamined"), *declared):
        cleaned = re.sub(r"[^A-Z0-9 _]", " ", str(value or "").upper()).strip()[:16].strip()
        if cleaned:
            return cleaned
    return None


def plain(text: str, length: int) -> str:
    """Text of ours as it may stand in any character set, cut to `length`: ASCII without backslash and tilde."""
    spelled = text.translate(_SPELLED)
    ascii_text = "".join(letter if " " <= letter <= "}" else "?" for letter in spelled)
    return ascii_text.replace("\\", "/")[:length].strip()


_SPELLED: Final = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212~\u00b7", "-"),
        **dict.fromkeys("\u2018\u2019", "'"),
        **dict.fromkeys("\u201c\u201d", '"'),
        **dict.fromkeys("\n\t\u00a0", " "),
        "\u2265": ">=",
        "\u2264": "<=",
        "\u00b2": "2",
        "\u00d7": "x",
        "\u00b1": "+-",
        "\u2026": "...",
        "\u00e4": "ae",
        "\u00f6": "oe",
        "\u00fc": "ue",
        "\u00df": "ss",
        "\u00e9": "e",
        "\u00e8": "e",
    }
)
