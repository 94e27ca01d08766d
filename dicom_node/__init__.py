"""The only speaker of DICOM and of the network; composes `cam_core` and `storage`."""

__version__ = "0.1.0"
