"""The report that people read: what came out, every score, or why the model was not used; holds no coordinates.

A Comprehensive SR in the shape of a diagnostic imaging report (PS3.16 TID 2000): the SOP Class that ultrasound has
brought into every archive, and a root title that no viewer takes for a measurement report to be drawn. It is built for
every study, so that *no finding*, *not performed, because* and *no result yet* can be told apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from highdicom.sr import ContainerContentItem, ContentItem, ContentSequence, LanguageOfContentItemAndDescendants
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID, ComprehensiveSRStorage

from cam_core.card import ModelCard
from cam_core.explanation import AnyRegion, Explanation
from cam_core.finding import Finding, UncertaintyKind, borderline_words, interval_percent, percent
from cam_core.volume_region import VolumeRegion
from dicom_node.objects import content
from dicom_node.objects.answer import (
    ImageAnswer,
    Reference,
    StudyAnswer,
    all_pictures,
    findings_present,
    headline,
    reason_concept,
    reference_to,
)
from dicom_node.objects.document import DocumentKind, document, document_reference
from dicom_node.provenance import CONCEPTS, ClinicalStatus, Provenance, presence_concept, processing_summary
from dicom_node.reading.groups import frame_count
from dicom_node.reading.selection import LeftOut

SUMMARY: Final = DocumentKind(kind="summary-report", sop_class_uid=ComprehensiveSRStorage, title="AI report")

STANDING: Final = (
    "AI-generated and not verified. Not for primary diagnosis: it supports the reading of the images and does not "
    "replace it."
)
ABOUT_MAPS: Final = (
    "An activation map explains the model; it is not ground truth. It shows which parts of the image raised the "
    "model's score, not where disease is, and reading it needs training."
)
ABOUT_SCORES: Final = (
    "Certainty of Finding is the model's score for the presence of a finding: present from the threshold on, absent "
    "below it."
)
ABOUT_INTERVALS: Final = (
    "The interval shows how far the model's own score varies when it is asked again. It does not say how likely the "
    "disease is, nor whether the model is right. Borderline means that the interval and the score are not on the same "
    "side of the threshold."
)
ASKED: Final[Mapping[UncertaintyKind, str]] = {
    "test-time-augmentation": "slightly changed copies of the image",
    "mc-dropout": "passes with parts of the network left out at random",
    "ensemble": "networks",
}
ENGLISH: Final = Code("en-US", "RFC5646", "English (United States)")
LISTED: Final = 40
"""Left-out instances that are listed one by one; more are counted by reason."""


def reference(answer: StudyAnswer, provenance: Provenance) -> Reference:
    """How other objects refer to this report."""
    return document_reference(SUMMARY, answer, provenance)


def build(answer: StudyAnswer, provenance: Provenance, *, measurements: Reference | None = None) -> Dataset:
    """The report for a study, whatever its status; `answer.header` may be of any instance.

    Parameters
    ----------
    answer : StudyAnswer
    provenance : Provenance
    measurements : Reference or None
        The measurement report of the same job.
    """
    root = ContainerContentItem(name=CONCEPTS["diagnostic imaging report"], template_id="2000")
    items: list[ContentItem] = [
        *LanguageOfContentItemAndDescendants(content.concept(ENGLISH)),
        *content.observation_context(provenance),
        content.coded(CONCEPTS["procedure reported"], _procedure(answer), content.MODIFIER),
        content.container("summary", _summary(answer)),
    ]
    if answer.images:
        items.append(content.container("findings", _findings(answer)))
    items.append(content.container("procedure descriptions", _procedure_description(answer, provenance)))
    if all_pictures(answer) or measurements is not None:
        items.append(content.container("key images", _key_images(answer, measurements)))
    root.ContentSequence = ContentSequence(items, is_root=False)
    return document(root, SUMMARY, _evidence(answer, measurements), answer, provenance)


def _procedure(answer: StudyAnswer) -> Code:
    header = answer.images[0].header if answer.images else answer.header
    return content.procedure(str(header.get("Modality", "")))


def _evidence(answer: StudyAnswer, measurements: Reference | None) -> list[Reference]:
    sources = [reference_to(one.header) for one in answer.images] or [reference_to(answer.header)]
    pictures = [picture.reference for picture in all_pictures(answer)]
    return [*sources, *pictures, *([measurements] if measurements is not None else [])]


def _summary(answer: StudyAnswer) -> Iterator[ContentItem]:
    yield content.text("conclusion", headline(answer))
    any_finding = bool(findings_present(answer))
    yield content.coded(CONCEPTS["processing summary"], processing_summary(answer.status, any_finding))
    outcome = content.coded(CONCEPTS["outcome"], answer.status.outcome)
    reason = reason_concept(answer)
    if reason is not None:
        name = "image quality" if answer.status is ClinicalStatus.UNUSABLE else "comment"
        outcome = content.with_children(outcome, [content.coded(CONCEPTS[name], reason, content.PROPERTY)])
    yield outcome
    for words in _caveats(answer):
        yield content.text("comment", words)


def _caveats(answer: StudyAnswer) -> Iterator[str]:
    for position, one in enumerate(answer.images, 1):
        frames = frame_count(one.header)
        if frames > 1 and one.frame == 0:
            which = f"Image {position} of {len(answer.images)}: " if len(answer.images) > 1 else ""
            yield f"Warning: {which}Only the first of {frames} frames was read"
    if answer.card is not None and answer.card.demonstration_only:
        yield "Demonstration model, not for clinical use."
    yield STANDING
    if any(one.explanations for one in answer.images):
        yield ABOUT_MAPS
    if answer.card is not None:
        yield f"Intended use of the model: {answer.card.intended_use.statement}"


def _findings(answer: StudyAnswer) -> Iterator[ContentItem]:
    yield content.text("comment", ABOUT_SCORES)
    if any(finding.uncertainty for one in answer.images for finding in one.prediction.findings):
        yield content.text("comment", ABOUT_INTERVALS)
    for position, one in enumerate(answer.images, 1):
        if len(answer.images) > 1:
            yield content.text("finding", f"Image {position} of {len(answer.images)}: {image_words(one)}")
        yield content.image(reference_to(one.header, one.frame), "source")
        for finding in sorted(one.prediction.findings, key=lambda each: (not each.present, -each.probability)):
            yield _score(finding, one)


def _score(finding: Finding, one: ImageAnswer) -> ContentItem:
    """A label as Present, Absent or Undetermined, with its score, threshold and what its maps show."""
    presence = presence_concept(finding.probability, finding.label.threshold)
    item = content.coded(finding.label.code, presence)
    children: list[ContentItem] = []
    if presence != CONCEPTS["undetermined"]:
        children.append(_certainty(finding))
    children.append(content.number("threshold", percent(finding.label.threshold), "percent", content.PROPERTY))
    children += [content.text("comment", words, content.PROPERTY) for words in _remarks(finding, one)]
    return content.with_children(item, children)


def _certainty(finding: Finding) -> ContentItem:
    """The score, and below it the distances to the ends of its interval (PS3.16 TID 310), the passes' mean and SD."""
    shown = percent(finding.probability, finding.label.threshold)
    score = content.number("certainty", shown, "percent", content.PROPERTY)
    spread, ends = finding.uncertainty, interval_percent(finding)
    if spread is None or ends is None:
        return score
    below = []
    if ends[0] <= shown <= ends[1]:
        distances = (("below", shown - ends[0]), ("above", ends[1] - shown))
        below += [content.number(name, round(far, 1), "percent", content.PROPERTY) for name, far in distances]
    for derivation, value in (("mean", spread.mean), ("standard deviation", spread.sd)):
        item = content.number("certainty", percent(value), "percent", content.PROPERTY)
        how = content.coded(CONCEPTS["derivation"], CONCEPTS[derivation], content.MODIFIER)
        below.append(content.with_children(item, [how]))
    return content.with_children(score, below)


def _remarks(finding: Finding, one: ImageAnswer) -> Iterator[str]:
    if finding.borderline:
        yield borderline_words(finding)
    yield from interval_words(finding)
    for explanation in one.explanations:
        if explanation.finding.label.name == finding.label.name:
            yield from map_words(explanation)


def interval_words(finding: Finding) -> Iterator[str]:
    """How far the score varies and by what that was found."""
    spread, ends = finding.uncertainty, interval_percent(finding)
    if spread is None or ends is None:
        return
    asked = f"{spread.passes} {ASKED[spread.kind]}"
    yield f"{percent(spread.level)} % interval of the score: {ends[0]} to {ends[1]} %, from {asked}"
    if not spread.low <= finding.probability <= spread.high:
        side, passes = ("below", "higher") if finding.probability < spread.low else ("above", "lower")
        yield f"The score itself lies {side} this interval; most passes gave a {passes} one"


def map_words(explanation: Explanation) -> Iterator[str]:
    """What the maps of one finding show, a sentence for each map."""
    for saliency, found in zip(explanation.maps, explanation.regions, strict=True):
        if saliency.is_blank:
            yield f"{saliency.full_title}: nothing to show; {saliency.condition.value}"
            continue
        if not found:
            yield f"{saliency.full_title}: no region reaches the threshold"
            continue
        number = "1 region" if len(found) == 1 else f"{len(found)} regions"
        if found[0].of > len(found):
            number = f"the {len(found)} largest of {found[0].of} regions"
        share = percent(found[0].share)
        yield f"{saliency.full_title}: {number}; the first holds {share} % of the map ({_where(found[0])})"
    for names in explanation.equivalent:
        yield f"The maps of {' and '.join(names)} are the same up to scale; they are not independent of each other"
    for method, words in explanation.failures:
        yield f"{method}: no map, {words}"


def _where(region: AnyRegion) -> str:
    """A region's peak and size."""
    if isinstance(region, VolumeRegion):
        slice_, size = f", slice {region.peak[2]:.0f}", f", {region.volume_mm3:.0f} mm3" if region.volume_mm3 else ""
    else:
        slice_, size = "", f", {region.area_mm2:.0f} mm2" if region.area_mm2 else ""
    return f"peak at column {region.peak[0]:.0f}, row {region.peak[1]:.0f}{slice_}{size}"


def image_words(one: ImageAnswer) -> str:
    """An image as people point to it."""
    header = one.header
    parts = [str(header.get("Modality") or "image")]
    parts += [str(header.get(keyword)) for keyword in ("ViewPosition",) if header.get(keyword)]
    for keyword, word in (("SeriesNumber", "series"), ("InstanceNumber", "instance")):
        if header.get(keyword) is not None:
            parts.append(f"{word} {header.get(keyword)}")
    if frame_count(header) > 1:
        parts.append(f"frame {one.frame + 1}")
    return ", ".join(parts)


def _procedure_description(answer: StudyAnswer, provenance: Provenance) -> Iterator[ContentItem]:
    yield from content.algorithm(answer.card, provenance, answer.parameters)
    for words in [*_model_words(answer.card, provenance), *_input_words(answer)]:
        yield content.text("procedure description", words)


def _model_words(card: ModelCard | None, provenance: Provenance) -> Iterator[str]:
    if card is None:
        yield f"Model {provenance.model}: its card can't be read"
        return
    yield f"Model {card.name} {card.version} of {card.manufacturer}: {card.description}"
    if card.training.data:
        yield f"Trained on: {card.training.data}"


def _input_words(answer: StudyAnswer) -> Iterator[str]:
    if answer.images:
        yield f"Images read: {len(answer.images)} ({'; '.join(image_words(one) for one in answer.images[:LISTED])})"
    else:
        yield "Images read: none"
    for warning in [*answer.warnings, *(warning for one in answer.images for warning in one.warnings)]:
        yield f"Warning: {warning}"
    yield from left_out_words(answer)


def left_out_words(answer: StudyAnswer) -> Sequence[str]:
    """Instances that the model did not see and why, one by one or counted where they are many."""
    return [*_listed("Not read", answer.unread), *_listed("Left out", answer.left_out)]


def _listed(verb: str, entries: Sequence[LeftOut]) -> list[str]:
    if len(entries) > LISTED:
        counted = Counter(entry.reason.words for entry in entries)
        return [f"{verb}: {count} instances. {words}" for words, count in counted.most_common()]
    return [
        f"{verb}: {UID(entry.sop_class_uid).name or 'object'} {entry.sop_instance_uid}. {entry.reason.words}"
        for entry in entries
    ]


def _key_images(answer: StudyAnswer, measurements: Reference | None) -> Iterator[ContentItem]:
    for picture in all_pictures(answer):
        yield content.text("comment", picture.title)
        yield content.image(picture.reference, "illustration")
    if measurements is not None:
        yield content.composite(measurements, "source report")
