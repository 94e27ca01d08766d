"""Content items of structured reports in this node's words; knows the tree's grammar, not what a report says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Final

from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    CompositeContentItem,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    ImageContentItem,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from cam_core.card import ModelCard, UncertaintySpecification
from cam_core.finding import Code as CardCode
from dicom_node.objects.answer import Reference
from dicom_node.objects.header import plain
from dicom_node.provenance import CONCEPTS, Provenance

CONTAINS: Final = RelationshipTypeValues.CONTAINS
PROPERTY: Final = RelationshipTypeValues.HAS_PROPERTIES
MODIFIER: Final = RelationshipTypeValues.HAS_CONCEPT_MOD

TEXT_LENGTH: Final = 2000


def concept(code: Code | CardCode) -> CodedConcept:
    """A coded concept as a report writes it: at most 64 ASCII letters of meaning (PS3.3 section 8.3)."""
    scheme = code.scheme if isinstance(code, CardCode) else code.scheme_designator
    return CodedConcept(value=code.value, scheme_designator=scheme, meaning=plain(code.meaning, 64))


def text(name: str, words: str, relationship: RelationshipTypeValues = CONTAINS) -> ContentItem:
    """A TEXT item; `name` is a key of CONCEPTS."""
    value = plain(words, TEXT_LENGTH) or "-"
    return TextContentItem(name=concept(CONCEPTS[name]), value=value, relationship_type=relationship)


def coded(
    name: Code | CardCode, value: Code | CardCode, relationship: RelationshipTypeValues = CONTAINS
) -> ContentItem:
    """A CODE item."""
    return CodeContentItem(name=concept(name), value=concept(value), relationship_type=relationship)


def number(name: str, value: float, unit: str, relationship: RelationshipTypeValues = CONTAINS) -> ContentItem:
    """A NUM item; `name` and `unit` are keys of CONCEPTS."""
    return NumContentItem(
        name=concept(CONCEPTS[name]), value=value, unit=concept(CONCEPTS[unit]), relationship_type=relationship
    )


def image(reference: Reference, name: str, relationship: RelationshipTypeValues = CONTAINS) -> ContentItem:
    """An IMAGE item; `name` is a key of CONCEPTS."""
    return ImageContentItem(
        name=concept(CONCEPTS[name]),
        referenced_sop_class_uid=reference.sop_class_uid,
        referenced_sop_instance_uid=reference.sop_instance_uid,
        referenced_frame_numbers=[reference.frame] if reference.frame is not None else None,
        relationship_type=relationship,
    )


def composite(reference: Reference, name: str) -> ContentItem:
    """A COMPOSITE item: another object that is no image."""
    return CompositeContentItem(
        name=concept(CONCEPTS[name]),
        referenced_sop_class_uid=reference.sop_class_uid,
        referenced_sop_instance_uid=reference.sop_instance_uid,
        relationship_type=CONTAINS,
    )


def container(name: str, items: Iterable[ContentItem]) -> ContentItem:
    """A CONTAINER below the root."""
    result = ContainerContentItem(name=concept(CONCEPTS[name]), is_content_continuous=False, relationship_type=CONTAINS)
    return with_children(result, items)


def with_children(parent: ContentItem, items: Iterable[ContentItem]) -> ContentItem:
    """The same item with `items` below it."""
    children = list(items)
    if children:
        parent.ContentSequence = ContentSequence(children)
    return parent


def observation_context(provenance: Provenance) -> ObservationContext:
    """This node as the device that observed (PS3.16 TID 1001, TID 1004)."""
    equipment = provenance.equipment
    device = DeviceObserverIdentifyingAttributes(
        uid=equipment.device_uid,
        name=plain(equipment.station_name, 64),
        manufacturer_name=plain(equipment.manufacturer, 64),
        model_name=plain(equipment.model_name, 64),
        serial_number=plain(equipment.device_serial_number, 64),
    )
    context = ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    return ObservationContext(observer_device_context=context)


def algorithm(card: ModelCard | None, provenance: Provenance, parameters: Sequence[str]) -> AlgorithmIdentification:
    """Which model, in which version, with which weights and settings (PS3.16 TID 4019)."""
    settings = (
        f"model_sha256={provenance.model_sha256}",
        f"card_sha256={provenance.card_digest}",
        *([f"target_layer={card.target_layer or 'found automatically'}"] if card else []),
        *([_uncertainty(card.uncertainty)] if card and card.uncertainty else []),
        f"pipeline_version={provenance.pipeline_version}",
        f"settings_digest={provenance.settings_digest}",
        f"route={provenance.route}",
        *parameters,
        "use=AI-generated, not for primary diagnosis",
        *(["demonstration_only=yes, not for clinical use"] if card and card.demonstration_only else []),
    )
    return AlgorithmIdentification(
        name=plain(provenance.model_name, 64),
        version=plain(provenance.model_version, 64),
        manufacturer=plain(card.manufacturer, 64) if card else None,
        parameters=[plain(setting, 1024) for setting in settings],
        family=CONCEPTS["artificial intelligence"],
    )


def _uncertainty(declared: UncertaintySpecification) -> str:
    """How the intervals of the scores were found, as one setting."""
    facts = {"kind": declared.kind, "passes": declared.passes, "level": declared.level, "seed": declared.seed}
    changes = asdict(declared.augmentations) if declared.augmentations else {}
    members = [f"member_sha256={member.sha256}" for member in declared.members]
    drawn = {name: amount for name, amount in changes.items() if amount}
    return f"uncertainty: {', '.join([*(f'{name}={value}' for name, value in (facts | drawn).items()), *members])}"


def procedure(modality: str) -> Code:
    """The imaging procedure that is reported on (PS3.16 CID 100), by modality."""
    key = {"CT": "CT procedure", "MR": "MR procedure"}.get(modality)
    if key is None:
        key = "XR procedure" if modality in ("CR", "DX", "MG", "XA", "RF", "RG", "IO", "PX") else "imaging procedure"
    return CONCEPTS[key]
