"""The first bytes of a stored file (PS3.10): preamble, prefix and file meta information; never touches the data set."""

from functools import lru_cache

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from dicom_node.receiving.instance import ReceivedInstance

#: derived from a UUID (PS3.5 B.2), fixed for this implementation
IMPLEMENTATION_CLASS_UID = "2.25.205758043863463293121952133720971053675"
IMPLEMENTATION_VERSION = "CAMNODE_1"
#: zeros: whatever a sender put into its own preamble (another file format, for instance) is never written to our disk
PREAMBLE = bytes(128)


def part10_prefix(instance: ReceivedInstance) -> bytes:
    """Give what stands before the verbatim data set in the stored file.

    The file is ``part10_prefix(instance) + instance.encoded`` (PS3.10 section 7.1).
    """
    source, receiver = instance.calling_ae.strip(), instance.called_ae.strip()
    classes = (instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax_uid)
    return _prefix(*classes, source or "ANY", receiver or "ANY")


@lru_cache(maxsize=32)
def _prefix(sop_class: str, sop_instance: str, transfer_syntax: str, source: str, receiver: str) -> bytes:
    """Encode group 2. Source and sender are the same here: the node keeps what it got from the one it got it from."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance)
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    meta.SourceApplicationEntityTitle = source
    meta.SendingApplicationEntityTitle = source
    meta.ReceivingApplicationEntityTitle = receiver
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_file_meta_info(buffer, meta)
    return PREAMBLE + b"DICM" + buffer.getvalue()
