"""Everything that the node must not forget. Knows UIDs as strings and objects as bytes, and no DICOM."""
