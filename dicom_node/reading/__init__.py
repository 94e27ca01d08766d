"""Files to values: headers, pixels, what a model may read and is meant for; the only pixel decoding of the node."""

from dicom_node.reading.header import Header, read_header
from dicom_node.reading.image import read_image
from dicom_node.reading.limits import DEFAULT_LIMITS, Limits

__all__ = ["DEFAULT_LIMITS", "Header", "Limits", "read_header", "read_image"]
