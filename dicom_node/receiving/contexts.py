"""Which presentation contexts are taken: every storage class, every transfer syntax of a data set; holds no association."""

from collections.abc import Iterable
from functools import lru_cache

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

VERIFICATION = UID("1.2.840.10008.1.1")
STORAGE_SERVICE = UID("1.2.840.10008.4.2")
#: encodings that are no DICOM data set of PS3.5 (MIME, XML, Papyrus) or no stored one (SMPTE ST 2110 streams)
_NOT_STORED = ("1.2.840.10008.1.2.6.", "1.2.840.10008.1.2.7.", "1.2.840.10008.1.20")
#: every other transfer syntax of PS3.6 Table A-1, retired ones included: what can't be decoded is still kept as it came
TRANSFER_SYNTAXES = frozenset(
    UID(uid)
    for uid, entry in UID_dictionary.items()
    if entry[1] == "Transfer Syntax" and not uid.startswith(_NOT_STORED)
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
    entry = UID_dictionary.get(abstract_syntax)
    if entry is None:
        return True
    return entry[1] == "SOP Class" and "Storage" in entry[0] and "Commitment" not in entry[0]


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
