"""An RGB picture as a Secondary Capture beside the images it was made from; knows no map, no model and no drawing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL.ImageCms import ImageCmsProfile, createProfile
from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, SecondaryCaptureImageStorage
from pydicom.valuerep import DS

from cam_core.card import ModelCard
from cam_core.finding import Finding, percent
from dicom_node.errors import ObjectError
from dicom_node.objects.answer import Picture, PictureKind, Reference, reference_to
from dicom_node.objects.header import Identity, body_part, code_item, common_header, copy_elements, plain
from dicom_node.provenance import CONCEPTS, Provenance, result_uid, series_uid
from dicom_node.reading.groups import frame_item, spacing_mm

KIND_OF_SERIES: Final = {"overlay": "secondary-capture", "panel": "secondary-capture", "notice": "notice"}
NOT_FOR_DIAGNOSIS: Final = "AI-generated. Not for primary diagnosis."
EXPLAINS: Final = "An activation map explains the model; it is not ground truth."
DEMONSTRATION: Final = "Demonstration model, not for clinical use."
UNPAIRED: Final = frozenset({"CHEST", "ABDOMEN", "PELVIS", "HEAD", "SKULL", "BRAIN", "NECK", "SPINE", "HEART", "LIVER"})
"""Body parts of which there is one: no side has to be stated (PS3.3 C.7.3.1, Laterality)."""

HEADS: Final = frozenset({"HEAD", "SKULL", "FACE", "ORBIT", "JAW", "SINUS", "HEADNECK"})
LOSSY: Final = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, "1.2.840.10008.1.2.4.81"})


@dataclass(frozen=True, kw_only=True, eq=False)
class Capture:
    """Everything about a picture but its pixels.

    Attributes
    ----------
    header : Dataset
        The image shown; for a notice any instance of the study.
    card : ModelCard or None
        None where it can't be read, which only a notice tells.
    kind : str
        ``overlay``, ``panel`` or ``notice``.
    title : str
        Method for people (``Grad-CAM``), ``methods compared`` or the notice's title.
    method : str
        Map name (``score-cam:delta``); empty for a panel or notice.
    finding : Finding or None
    frame : int
        From 0.
    instance_number : int
        Position in the series, from 1.
    derivation : str
        Palette, opacity, threshold and whatever else made the picture.
    anatomy : (x0, y0, x1, y1) int or None, picture pixel
        Where on the picture the image lies.
    scale : (row, column) float
        Picture pixels per image pixel.
    """

    header: Dataset
    card: ModelCard | None
    kind: PictureKind
    title: str
    method: str = ""
    finding: Finding | None = None
    frame: int = 0
    instance_number: int = 1
    derivation: str = ""
    anatomy: tuple[int, int, int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)


def picture_of(capture: Capture, provenance: Provenance) -> Picture:
    """How reports refer to the picture; known before it is built."""
    kind = KIND_OF_SERIES[capture.kind]
    label = capture.finding.label.name if capture.finding else ""
    source_uid = str(capture.header.SOPInstanceUID) if capture.kind != "notice" else ""
    facts = (capture.kind, source_uid, str(capture.frame), label, capture.method, capture.derivation)
    reference = Reference(
        sop_class_uid=SecondaryCaptureImageStorage,
        sop_instance_uid=result_uid(provenance, kind, *facts),
        series_instance_uid=series_uid(provenance, kind),
        study_instance_uid=str(capture.header.StudyInstanceUID),
    )
    return Picture(
        reference=reference,
        kind=capture.kind,
        source_uid=source_uid,
        finding=label,
        method=capture.method,
        title=_title(capture),
    )


def build(pixels: NDArray[np.uint8], capture: Capture, provenance: Provenance) -> Dataset:
    """A Secondary Capture Image (PS3.3 A.8.1).

    Parameters
    ----------
    pixels : (H, W, 3) uint8
        sRGB; H and W even, since some viewers fail on an odd number of bytes. Nothing on it may identify the patient.
    capture : Capture
    provenance : Provenance

    Raises
    ------
    ObjectError
        Pixels of another kind, shape or an odd size.
    """
    _check_pixels(pixels)
    picture = picture_of(capture, provenance)
    identity = Identity(
        kind=KIND_OF_SERIES[capture.kind],
        sop_class_uid=SecondaryCaptureImageStorage,
        sop_instance_uid=picture.reference.sop_instance_uid,
        instance_number=capture.instance_number,
        modality="OT",
        series_description=_series_description(capture, provenance),
    )
    result = common_header(capture.header, identity, provenance)
    _secondary_capture(result)
    _general_image(result, capture)
    if capture.kind != "notice":
        _source_image(result, capture)
        _lossy_history(result, capture.header)
    else:
        result.LossyImageCompression = "00"
    if _same_grid(capture):
        _geometry(result, capture)
    _image_pixels(result, pixels)
    return result


def _check_pixels(pixels: NDArray[np.uint8]) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ObjectError(f"a picture is (rows, columns, 3) of 8 bits, this is {pixels.shape} {pixels.dtype}")
    if pixels.shape[0] % 2 or pixels.shape[1] % 2 or 0 in pixels.shape or max(pixels.shape) > 65534:
        raise ObjectError(f"a picture has an even number of rows and columns, this has {pixels.shape[:2]}")


def _title(capture: Capture) -> str:
    if capture.finding is None:
        return plain(capture.title, 64)
    certainty = percent(capture.finding.probability, capture.finding.label.threshold)
    return plain(f"{capture.title} {capture.finding.label.name} {certainty} %", 64)


def _series_description(capture: Capture, provenance: Provenance) -> str:
    what = "AI notice" if capture.kind == "notice" else "AI activation maps"
    return f"{what}: {provenance.model}"


def _secondary_capture(result: Dataset) -> None:
    """SC Equipment and SC Image modules (PS3.3 C.8.6.1, C.8.6.2)."""
    result.ConversionType = "WSD"
    result.SecondaryCaptureDeviceManufacturer = result.Manufacturer
    result.SecondaryCaptureDeviceManufacturerModelName = result.ManufacturerModelName
    result.SecondaryCaptureDeviceSoftwareVersions = list(result.SoftwareVersions)
    result.DateOfSecondaryCapture = result.ContentDate
    result.TimeOfSecondaryCapture = result.ContentTime


def _general_image(result: Dataset, capture: Capture) -> None:
    """General Image module (PS3.3 C.7.6.1) and what of the General Series module depends on the image."""
    header = capture.header
    result.ImageType = ["DERIVED", "SECONDARY"]
    remarks = [_title(capture) + ".", NOT_FOR_DIAGNOSIS, EXPLAINS]
    if capture.card is not None and capture.card.demonstration_only:
        remarks.append(DEMONSTRATION)
    result.ImageComments = plain(" ".join(remarks), 10240)
    result.BurnedInAnnotation = "NO"
    part = body_part(header, _declared(capture))
    if part is not None:
        result.BodyPartExamined = part
    result.RecognizableVisualFeatures = "YES" if part in HEADS else "NO"
    side = header.get("ImageLaterality") or header.get("Laterality")
    if side in ("R", "L", "U", "B"):
        result.ImageLaterality = side
    elif part not in UNPAIRED:
        result.ImageLaterality = "U"
    result.PatientOrientation = patient_orientation(header, capture.frame) if capture.kind != "notice" else None


def _declared(capture: Capture) -> tuple[str, ...]:
    """Body parts of the model's card, which say something of an image only when the model accepted it."""
    if capture.card is None or capture.kind == "notice":
        return ()
    return capture.card.intended_use.body_parts


def _source_image(result: Dataset, capture: Capture) -> None:
    source = reference_to(capture.header, capture.frame)
    item = Dataset()
    item.ReferencedSOPClassUID = source.sop_class_uid
    item.ReferencedSOPInstanceUID = source.sop_instance_uid
    if source.frame is not None:
        item.ReferencedFrameNumber = source.frame
    item.PurposeOfReferenceCodeSequence = [code_item(CONCEPTS["source image"])]
    in_place = _same_grid(capture) and capture.anatomy is not None and capture.anatomy[:2] == (0, 0)
    item.SpatialLocationsPreserved = "YES" if in_place else "NO"
    result.SourceImageSequence = [item]
    facts = [f"method {capture.method or capture.title}", capture.derivation]
    result.DerivationDescription = plain(", ".join(fact for fact in facts if fact), 1024)


def _same_grid(capture: Capture) -> bool:
    return capture.kind == "overlay" and capture.anatomy is not None and capture.scale == (1.0, 1.0)


def _geometry(result: Dataset, capture: Capture) -> None:
    """Spacing where one picture pixel is one image pixel; position only with a Frame of Reference (PS3.3 C.7.6.2)."""
    header, frame = capture.header, capture.frame
    spacing = spacing_mm(header, frame)
    if spacing is None or capture.anatomy is None:
        return
    result.PixelSpacing = [DS(value, auto_format=True) for value in spacing]
    copy_elements(header, result, ("PixelSpacingCalibrationType", "PixelSpacingCalibrationDescription"))
    orientation = frame_item(header, frame, "PlaneOrientationSequence").get("ImageOrientationPatient")
    position = frame_item(header, frame, "PlanePositionSequence").get("ImagePositionPatient")
    usable = orientation is not None and position is not None and len(orientation) == 6 and len(position) == 3
    if not header.get("FrameOfReferenceUID") or not usable:
        return
    row, column = np.asarray(orientation[:3], dtype=float), np.asarray(orientation[3:], dtype=float)
    corner = np.asarray(position, dtype=float)
    corner = corner - row * spacing[1] * capture.anatomy[0] - column * spacing[0] * capture.anatomy[1]
    result.FrameOfReferenceUID = header.FrameOfReferenceUID
    result.PositionReferenceIndicator = None
    copy_elements(header, result, ("PositionReferenceIndicator",))
    result.ImageOrientationPatient = [DS(float(value), auto_format=True) for value in orientation]
    result.ImagePositionPatient = [DS(float(value), auto_format=True) for value in corner]
    thickness = frame_item(header, frame, "PixelMeasuresSequence").get("SliceThickness")
    result.SliceThickness = thickness if thickness and thickness > 0 else None


def patient_orientation(header: Dataset, frame: int) -> list[str] | None:
    """Patient Orientation as stated, else from the image axes (PS3.3 C.7.6.1.1.1); None when neither is there."""
    stated = header.get("PatientOrientation")
    if stated is not None and not isinstance(stated, str) and len(stated) == 2 and all(stated):
        return [str(part) for part in stated]
    axes = frame_item(header, frame, "PlaneOrientationSequence").get("ImageOrientationPatient")
    if axes is None or len(axes) != 6:
        return None
    cosines = [float(value) for value in axes]
    letters = [_direction(cosines[:3]), _direction(cosines[3:])]
    return letters if all(letters) else None


def _direction(cosines: list[float]) -> str:
    pairs = ("LR", "PA", "HF")
    order = sorted(range(3), key=lambda axis: -abs(cosines[axis]))
    return "".join(pairs[axis][0 if cosines[axis] > 0 else 1] for axis in order if abs(cosines[axis]) > 0.2)


def _lossy_history(result: Dataset, header: Dataset) -> None:
    """Once lossy, always lossy (PS3.3 C.7.6.1.1.5)."""
    meta = getattr(header, "file_meta", None)
    lossy = header.get("LossyImageCompression") == "01" or (meta is not None and meta.get("TransferSyntaxUID") in LOSSY)
    result.LossyImageCompression = "01" if lossy else "00"
    if lossy:
        copy_elements(header, result, ("LossyImageCompressionRatio", "LossyImageCompressionMethod"))


def _image_pixels(result: Dataset, pixels: NDArray[np.uint8]) -> None:
    """Image Pixel and ICC Profile modules (PS3.3 C.7.6.3, C.11.15)."""
    result.SamplesPerPixel = 3
    result.PhotometricInterpretation = "RGB"
    result.PlanarConfiguration = 0
    result.Rows, result.Columns = pixels.shape[:2]
    result.BitsAllocated = result.BitsStored = 8
    result.HighBit = 7
    result.PixelRepresentation = 0
    result.ICCProfile = srgb_profile()
    result.ColorSpace = "SRGB"
    result.PixelData = np.ascontiguousarray(pixels).tobytes()
    result["PixelData"].VR = "OB"


@cache
def srgb_profile() -> bytes:
    """A small sRGB profile of device class ``scnr``, as DICOM asks for, without a date of its own (ICC.1 7.2)."""
    profile = bytearray(ImageCmsProfile(createProfile("sRGB")).tobytes())
    profile[12:16] = b"scnr"
    profile[24:36] = (2000).to_bytes(2, "big") + b"\0\1\0\1" + b"\0" * 6
    profile[84:100] = b"\0" * 16
    return bytes(profile) + b"\0" * (len(profile) % 2)
