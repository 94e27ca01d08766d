"""Which presentation contexts are taken: every storage class, every transfer syntax; holds no association."""

from collections.abc import Iterable
from functools import lru_cache

from pydicom.uid import UID, AllTransferSyntaxes, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

VERIFICATION = UID("1.2.840.10008.1.1")
STORAGE_SERVICE = UID("1.2.840.10008.4.2")
#: real-time video streams (SMPTE ST 2110), never a stored object
_STREAMS = "1.2.840.10008.1.2.7."
#: of the standard, but not among pydicom's: retired JPEG processes, encapsulated uncompressed, JPIP referenced
_FURTHER = (
    *(f"1.2.840.10008.1.2.4.{process}" for process in (52, 53, 54, 55, 56, 58, 59, 60, 61, 62, 63, 64, 65, 66, 94, 95)),
    "1.2.840.10008.1.2.1.98",
)
#: every transfer syntax of PS3.6 Table A-1 that encodes a data set: what can't be decoded is still kept as it came
TRANSFER_SYNTAXES = frozenset(
    [uid for uid in AllTransferSyntaxes if not uid.startswith(_STREAMS)] + [UID(uid) for uid in _FURTHER]
)


@lru_cache(maxsize=1024)
def is_storage(abstract_syntax: str) -> bool:
    """Whether a proposed abstract syntax is taken as a storage class.

    Yes for the classes of the Storage service, for retired ones that the standard calls storage, and for whatever is
    private or unknown: a new or a vendor's class must not cost a study its images. No for every other known class.
    """
    service = uid_to_service_class(abstract_syntax)
    if service is not ServiceClass:
        return issubclass(service, StorageServiceClass)
    uid = UID(abstract_syntax)
    if uid.is_private or not uid.type:
        return True
    return uid.type == "SOP Class" and "Storage" in uid.name and "Commitment" not in uid.name


def acceptable(proposed: Iterable[PresentationContext]) -> list[PresentationContext]:
    """Give the contexts an acceptor supports, made to measure for one request.

    Building them from the proposal keeps negotiation short (a few contexts instead of 180 times 50 transfer syntaxes,
    which pynetdicom would copy for every association), keeps the requestor's own order of transfer syntaxes and takes
    unknown classes. The one change of order: explicit before implicit VR little endian, because explicit VR keeps the
    VR of private elements.
    """
    syntaxes: dict[str, list[UID]] = {}
    for context in proposed:
        uid = context.abstract_syntax
        if uid is not None and (uid == VERIFICATION or is_storage(uid)):
            known = syntaxes.setdefault(uid, [])
            known.extend(ts for ts in context.transfer_syntax if ts in TRANSFER_SYNTAXES and ts not in known)
    return [build_context(uid, [*_explicit_first(known)]) for uid, known in syntaxes.items() if known]


def storage_by_name(proposed: Iterable[PresentationContext]) -> dict[UID, SOPClassCommonExtendedNegotiation]:
    """Name the Storage service for every proposed storage class that pynetdicom doesn't know (PS3.7 D.3.3.6).

    Nothing of it is sent; it lets a C-STORE of a private or unknown class reach the storage handler.
    """
    named: dict[UID, SOPClassCommonExtendedNegotiation] = {}
    for context in proposed:
        uid = context.abstract_syntax
        if uid is not None and uid_to_service_class(uid) is ServiceClass and is_storage(uid):
            extended = SOPClassCommonExtendedNegotiation()
            extended.sop_class_uid = uid
            extended.service_class_uid = STORAGE_SERVICE
            named[uid] = extended
    return named


def _explicit_first(syntaxes: list[UID]) -> list[UID]:
    """Move implicit VR behind explicit VR little endian when both are proposed."""
    if ExplicitVRLittleEndian in syntaxes and ImplicitVRLittleEndian in syntaxes:
        rest = [uid for uid in syntaxes if uid != ImplicitVRLittleEndian]
        rest.insert(rest.index(ExplicitVRLittleEndian) + 1, ImplicitVRLittleEndian)
        return rest
    return syntaxes
