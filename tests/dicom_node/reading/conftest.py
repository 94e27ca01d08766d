"""A real film, made small, as the file that every twin is compared with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

Twin = Callable[..., Path]


@pytest.fixture(scope="session")
def film(real_image: Callable[[str], Path]) -> NDArray[np.uint16]:
    """(120, 112) of a real chest film, 12 bits, bone bright."""
    stored = dcmread(real_image("RG1_UNCR.dcm")).pixel_array[::16, ::16][:120, :112]
    return ((32767 - stored.astype(np.int64)) >> 3).astype(np.uint16)


@pytest.fixture
def twin(tmp_path: Path) -> Twin:
    """Write stored values with attributes of their pixels; keyword arguments replace attributes, None removes one."""

    def make(stored: NDArray[Any], **attributes: Any) -> Path:
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = attributes.pop("syntax", ExplicitVRLittleEndian)
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = "2.25.2", "2.25.3", "CR"
        ds.Rows, ds.Columns = stored.shape[:2]
        ds.SamplesPerPixel = 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        for keyword, value in attributes.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)
        big = not ds.file_meta.TransferSyntaxUID.is_little_endian
        ds.PixelData = (stored.byteswap() if big else stored).tobytes()
        ds["PixelData"].VR = "OW"
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.dcm"
        ds.save_as(path, enforce_file_format=True)
        return path

    return make
