"""Our audit events as DICOM audit messages (PS3.15 section A.5): pure; sends nothing and knows no database."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

from lxml import etree

_Element = Any
_DCM = "DCM"
_DECLARATION = b"<?xml version='1.0' encoding='UTF-8'?>"
#: outcome of our events to EventOutcomeIndicator (PS3.15 A.5.2.1: success, minor, serious, major failure)
OUTCOMES = {"success": 0, "minor": 4, "serious": 8, "major": 12}
#: DCM codes of CID 400 to 402 (PS3.16) that occur here
MEANINGS = {
    "110100": "Application Activity",
    "110101": "Audit Log Used",
    "110102": "Begin Transferring DICOM Instances",
    "110103": "DICOM Instances Accessed",
    "110104": "DICOM Instances Transferred",
    "110106": "Export",
    "110111": "Procedure Record",
    "110113": "Security Alert",
    "110120": "Application Start",
    "110121": "Application Stop",
    "110126": "Node Authentication",
    "110131": "Software Configuration",
    "110150": "Application",
    "110151": "Application Launcher",
    "110152": "Destination Role ID",
    "110153": "Source Role ID",
    "110154": "Destination Media",
    "110180": "Study Instance UID",
}


@dataclass(frozen=True, kw_only=True)
class AuditSource:
    """Who tells: `name` becomes the AuditSourceID, `ae_title` is the node's, `site` the enterprise site, if any."""

    name: str
    ae_title: str
    address: str = ""
    site: str = ""


@dataclass(frozen=True, kw_only=True)
class _Context:
    """One event on its way to a message."""

    event: Mapping[str, Any]
    details: Mapping[str, Any]
    source: AuditSource


_Part = Callable[[_Element, _Context], object]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How one of our events is told: DCM event and types, action (C, R, U, D, E), parts, and the least outcome."""

    event: str
    action: str
    parts: tuple[_Part, ...]
    types: tuple[str, ...] = ()
    least_outcome: int = 0


def audit_message(event: Mapping[str, Any], source: AuditSource) -> bytes:
    """Tell one of our audit events as a message of the schema in PS3.15 section A.5.1.

    Parameters
    ----------
    event : mapping
        ``seq, time (ISO 8601), event, outcome, actor, study_uid`` and ``details``, whose known keys become
        participants; the others become details of the object, so that nothing is lost. An event that isn't in `KINDS`
        is told as application activity.
    source : AuditSource
        The node.

    Returns
    -------
    bytes
        XML, UTF-8, in one line, without the byte order mark that RFC 5424 puts before it.
    """
    kind = KINDS.get(str(event["event"]), OTHER)
    context = _Context(event=event, details=event.get("details") or {}, source=source)
    message = etree.Element("AuditMessage")
    _identification(message, kind, context)
    participants = etree.Element("parts")
    for part in kind.parts:
        part(participants, context)
    message.extend(participants.findall("ActiveParticipant"))
    _audit_source(message, source)
    message.extend(participants.findall("ParticipantObjectIdentification"))
    return _DECLARATION + bytes(etree.tostring(message, encoding="UTF-8", xml_declaration=False))


def _identification(message: _Element, kind: Kind, context: _Context) -> None:
    """EventIdentification: what, when, how it went. Our own event name goes along as a further type."""
    outcome = max(OUTCOMES.get(str(context.event.get("outcome", "success")), OUTCOMES["serious"]), kind.least_outcome)
    element = _add(
        message,
        "EventIdentification",
        EventActionCode=kind.action,
        EventDateTime=_time(str(context.event["time"])),
        EventOutcomeIndicator=str(outcome),
    )
    _code(element, "EventID", kind.event)
    for code in kind.types:
        _code(element, "EventTypeCode", code)
    name = str(context.event["event"])
    _code(element, "EventTypeCode", name, "99CAMNODE", name.replace(".", " ").replace("_", " "))
    reason = context.details.get("reason")
    if outcome and reason:
        etree.SubElement(element, "EventOutcomeDescription").text = _clean(reason)


def _audit_source(message: _Element, source: AuditSource) -> None:
    """AuditSourceIdentification; type 4 is an application server process (PS3.15 A.5.2.3)."""
    site = {"AuditEnterpriseSiteID": source.site} if source.site else {}
    element = _add(message, "AuditSourceIdentification", **site, AuditSourceID=source.name)
    _add(element, "AuditSourceTypeCode", **{"csd-code": "4"})


# who takes part


def _node(parent: _Element, context: _Context, *, requestor: bool, role: str) -> None:
    """This node in a role."""
    source = context.source
    _participant(parent, source.name, role, requestor=requestor, ae=source.ae_title, address=source.address)


def _participant(
    parent: _Element, user: object, role: str, *, requestor: bool, ae: object = "", address: object = ""
) -> None:
    """ActiveParticipant (PS3.15 A.5.2.2); a remote AE without any name is told as unknown."""
    attributes = {"UserID": _clean(user) or "unknown", "UserIsRequestor": str(requestor).lower()}
    if ae:
        attributes["AlternativeUserID"] = f"AETITLES={_clean(ae)}"
    if address:
        attributes["NetworkAccessPointID"] = _clean(address)
        attributes["NetworkAccessPointTypeCode"] = "2" if _is_address(str(address)) else "1"
    element = _add(parent, "ActiveParticipant", **attributes)
    if role:
        _code(element, "RoleIDCode", role)


def _application(parent: _Element, context: _Context) -> None:
    """The node, and who started or stopped it."""
    _node(parent, context, requestor=False, role="110150")
    _participant(parent, context.event["actor"], "110151", requestor=True)


def _from_peer(parent: _Element, context: _Context) -> None:
    """A peer sends, the node receives."""
    details = context.details
    sender = details.get("calling_ae") or context.event["actor"]
    _participant(parent, sender, "110153", requestor=True, ae=sender, address=details.get("address", ""))
    _node(parent, context, requestor=False, role="110152")


def _to_peer(parent: _Element, context: _Context) -> None:
    """The node sends, a peer receives."""
    details = context.details
    _node(parent, context, requestor=True, role="110153")
    peer = details.get("peer") or details.get("peer_ae")
    receiver = details.get("peer_ae") or details.get("peer") or ""
    _participant(parent, peer, "110152", requestor=False, ae=receiver, address=details.get("address", ""))


def _actor(parent: _Element, context: _Context) -> None:
    """Whoever did it, a person or the node itself."""
    if context.event["actor"] in {"node", context.source.name}:
        _node(parent, context, requestor=True, role="110150")
    else:
        _participant(parent, context.event["actor"], "", requestor=True)
        _node(parent, context, requestor=False, role="110150")


def _culprit(parent: _Element, context: _Context) -> None:
    """The node reports; the other end of the association is what it reports."""
    details = context.details
    _node(parent, context, requestor=True, role="110150")
    caller = details.get("calling_ae") or context.event["actor"]
    _participant(parent, caller, "", requestor=False, ae=caller, address=details.get("address", ""))


def _exporter(parent: _Element, context: _Context) -> None:
    """A person asks, the node exports to some media."""
    _participant(parent, context.event["actor"], "", requestor=True)
    _node(parent, context, requestor=False, role="110153")
    destination = _add(parent, "ActiveParticipant", UserID="audit export", UserIsRequestor="false")
    _code(destination, "RoleIDCode", "110154")
    media = etree.SubElement(destination, "MediaIdentifier")
    _code(media, "MediaType", "110037", _DCM, "URI")


# what it is about


def _study(parent: _Element, context: _Context) -> None:
    """The study with accession number and SOP classes, and the patient; what else is known becomes its details."""
    uid = context.event.get("study_uid")
    if uid:
        element = _object(parent, uid, ("2", "3"), ("110180", _DCM, MEANINGS["110180"]), "Study")
        _details(element, context)
        _description(element, context.details)
    else:
        _resource(parent, context)
    patient = context.details.get("patient_id")
    if patient:
        _object(parent, patient, ("1", "1"), ("2", "RFC-3881", "Patient Number"), "Patient")


def _description(element: _Element, details: Mapping[str, Any]) -> None:
    """ParticipantObjectDescription: accession number, and how many instances of which SOP class."""
    accession, classes = details.get("accession_number"), details.get("sop_class_uids")
    instance, sop_class = details.get("sop_instance_uid"), details.get("sop_class_uid")
    if not isinstance(classes, Mapping):
        classes = {sop_class or "": 1} if instance else {}
    if not accession and not classes:
        return
    description = etree.SubElement(element, "ParticipantObjectDescription")
    if accession:
        _add(description, "Accession", Number=_clean(accession))
    for uid, count in classes.items():
        named = {"UID": _clean(uid)} if uid else {}
        node = _add(description, "SOPClass", **named, NumberOfInstances=str(int(count)))
        if instance and len(classes) == 1:
            _add(node, "Instance", UID=_clean(instance))


def _title(parent: _Element, context: _Context) -> _Element:
    """The AE title that was called."""
    called = context.details.get("called_ae") or context.source.ae_title
    element = _object(parent, called, ("2", "13"), ("110150", _DCM, MEANINGS["110150"]), "AE title")
    _details(element, context)
    return element


def _alert(parent: _Element, context: _Context) -> None:
    """What was wrong, as the security alert wants it (PS3.15 A.5.3.11)."""
    _detail(_title(parent, context), "Alert Description", context.details.get("reason") or str(context.event["event"]))


def _resource(parent: _Element, context: _Context) -> None:
    """A model, a configuration, a queue entry: a system object with what is known about it."""
    details = context.details
    name = next((details[key] for key in _NAMES if details.get(key)), None)
    if name is None and not any(key not in _PLACED for key in details):
        return
    element = _object(parent, name or context.source.name, ("2", "13"), _URI, "Resource")
    _details(element, context)


def _log(parent: _Element, context: _Context) -> None:
    """The audit trail itself."""
    element = _object(parent, context.details.get("path") or "audit", ("2", "13"), _URI, "Security Audit Log")
    _details(element, context)


_URI = ("12", "RFC-3881", "URI")
_NAMES = ("model", "configuration", "path", "job_id", "delivery_id", "result_uid", "sop_instance_uid", "route", "peer")
#: details that have a place of their own in the message
_PLACED = frozenset({
    "calling_ae", "called_ae", "address", "patient_id", "accession_number", "sop_class_uids", "sop_class_uid",
    "sop_instance_uid", "peer", "peer_ae",
})  # fmt: skip


def _object(
    parent: _Element, identifier: object, roles: tuple[str, str], id_type: tuple[str, str, str], name: str
) -> _Element:
    """ParticipantObjectIdentification (PS3.15 A.5.2.4); roles are type code and type code role."""
    element = _add(
        parent,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_clean(identifier),
        ParticipantObjectTypeCode=roles[0],
        ParticipantObjectTypeCodeRole=roles[1],
    )
    _code(element, "ParticipantObjectIDTypeCode", *id_type)
    etree.SubElement(element, "ParticipantObjectName").text = name
    return element


def _details(element: _Element, context: _Context) -> None:
    """Everything that has no place of its own, and the place in our trail."""
    if "seq" in context.event:
        _detail(element, "seq", context.event["seq"])
    for key, value in sorted(context.details.items()):
        if key not in _PLACED and value is not None:
            _detail(element, key, value)


def _detail(element: _Element, name: str, value: object) -> None:
    """ParticipantObjectDetail: a name and a base64 value; what isn't text goes as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    encoded = b64encode(text.encode(errors="replace")).decode()
    _add(element, "ParticipantObjectDetail", type=_clean(name), value=encoded)


def _code(parent: _Element, name: str, code: str, scheme: str = _DCM, meaning: str | None = None) -> None:
    """A coded value: the attribute is called csd-code since PS3.15 took the schema over from RFC 3881."""
    text = meaning if meaning is not None else MEANINGS[code]
    _add(parent, name, **{"csd-code": _clean(code), "codeSystemName": scheme, "originalText": _clean(text)})


def _add(parent: _Element, name: str, **attributes: str) -> _Element:
    """Append an element."""
    return etree.SubElement(parent, name, attrib=attributes)


def _clean(value: object) -> str:
    """Text that XML 1.0 can hold: control characters and lone surrogates become question marks."""
    return "".join(letter if _is_xml(ord(letter)) else "?" for letter in str(value if value is not None else ""))


def _is_xml(code: int) -> bool:
    """Whether a code point may stand in XML 1.0 (section 2.2) and in an attribute: no line ends."""
    return 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or 0x10000 <= code <= 0x10FFFF


def _time(text: str) -> str:
    """An xsd:dateTime with its offset; a time without one is UTC."""
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).isoformat()


def _is_address(text: str) -> bool:
    """Whether this is an IP address (and not a machine's name)."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _each(names: Iterable[str], kind: Kind) -> dict[str, Kind]:
    """The same kind for several events."""
    return dict.fromkeys(names, kind)


OTHER = Kind(event="110100", action="E", parts=(_actor, _study))
#: our event names (PS3.15 section A.5.3 for what each message has to hold)
KINDS: Mapping[str, Kind] = {
    "node.started": Kind(event="110100", types=("110120",), action="E", parts=(_application,)),
    "node.stopped": Kind(event="110100", types=("110121",), action="E", parts=(_application,)),
    **_each(
        ("association.accepted", "association.released", "association.aborted"),
        Kind(event="110100", action="E", parts=(_from_peer, _title)),
    ),
    "association.rejected": Kind(
        event="110113", types=("110126",), action="E", parts=(_culprit, _alert), least_outcome=8
    ),
    "instance.stored": Kind(event="110104", action="C", parts=(_from_peer, _study)),
    "instance.duplicate": Kind(event="110104", action="R", parts=(_from_peer, _study)),
    "instance.conflict": Kind(event="110104", action="U", parts=(_from_peer, _study)),
    "instance.refused": Kind(event="110104", action="C", parts=(_from_peer, _study), least_outcome=4),
    **_each(
        ("study.completed", "study.ignored", "study.reopened", "job.queued", "job.replayed"),
        Kind(event="110111", action="U", parts=(_actor, _study)),
    ),
    **_each(
        ("job.started", "job.done", "job.refused"),
        Kind(event="110103", action="R", parts=(_actor, _study)),
    ),
    **_each(
        ("job.attempt_failed", "job.failed"),
        Kind(event="110103", action="R", parts=(_actor, _study), least_outcome=4),
    ),
    "result.built": Kind(event="110103", action="C", parts=(_actor, _study)),
    "delivery.sent": Kind(event="110104", action="R", parts=(_to_peer, _study)),
    "delivery.failed": Kind(event="110104", action="R", parts=(_to_peer, _study), least_outcome=4),
    "delivery.parked": Kind(event="110104", action="R", parts=(_to_peer, _study), least_outcome=4),
    "delivery.retried": Kind(event="110102", action="E", parts=(_to_peer, _study)),
    "configuration.loaded": Kind(event="110113", types=("110131",), action="E", parts=(_actor, _resource)),
    "model.loaded": Kind(event="110113", types=("110131",), action="E", parts=(_actor, _resource)),
    "model.unusable": Kind(event="110113", types=("110131",), action="E", parts=(_actor, _resource), least_outcome=8),
    "audit.read": Kind(event="110101", action="R", parts=(_actor, _log)),
    "audit.exported": Kind(event="110106", action="R", parts=(_exporter, _log)),
}
