"""What is written beside a picture of an explanation; knows no pixels, and nothing of the patient."""

from __future__ import annotations

from collections.abc import Sequence

from cam_core.explanation import AnyRegion, Explanation
from cam_core.finding import Finding, borderline_words
from cam_core.finding import percent as figure
from cam_core.legend import AMBER, DARK, RED, WHITE, Bar, Block, Rule, Words
from cam_core.normalisation import Normalisation, scale_of
from cam_core.part import LEAST_SHARE
from cam_core.picture import OverlayStyle
from cam_core.saliency import SaliencyMap
from cam_core.volume_region import VolumeRegion

NOT_PRIMARY = "AI explanation, not for primary diagnosis"
NOT_TRUTH = "The map explains the model; it is not ground truth."
DEMONSTRATION = "DEMONSTRATION ONLY, NOT FOR CLINICAL USE"

TICKS = 4
"""Steps of the colour bar."""


def warnings(style: OverlayStyle) -> list[Block]:
    """The boxes that every picture begins with."""
    boxes: list[Block] = [Words(text=NOT_PRIMARY, colour=AMBER, box=DARK)]
    if style.demonstration_only:
        boxes.insert(0, Words(text=DEMONSTRATION, colour=WHITE, box=RED))
    return boxes


def finding_words(finding: Finding) -> list[Block]:
    """Name, certainty and threshold of a finding."""
    threshold = finding.label.threshold
    relation = "at or above" if finding.present else "below"
    blocks: list[Block] = [
        Words(text=finding.label.name, size=1.6, colour=WHITE),
        Words(text=f"Certainty {percent(finding.probability, threshold)}", size=1.25, colour=WHITE),
        Words(text=f"{relation} the threshold of {percent(threshold)}"),
    ]
    if finding.uncertainty is not None:
        low, high = (percent(end, threshold) for end in (finding.uncertainty.low, finding.uncertainty.high))
        blocks.append(Words(text=f"{percent(finding.uncertainty.level)} interval {low} to {high}"))
    if finding.borderline:
        blocks.append(Words(text=borderline_words(finding), colour=AMBER, box=DARK))
    return blocks


def ending(model: str) -> list[Block]:
    """What every picture of a map ends with."""
    return [Rule(), Words(text=f"Model {model}", colour=WHITE), Words(text=NOT_TRUTH, colour=AMBER)]


def overlay_caption(
    saliency: SaliencyMap, finding: Finding, found: Sequence[AnyRegion], model: str, style: OverlayStyle
) -> tuple[Block, ...]:
    """The words beside one overlay."""
    head = [*warnings(style), *finding_words(finding), Rule()]
    return (*head, *map_words(saliency, style), *region_words(saliency, found), *ending(model))


def map_words(saliency: SaliencyMap, style: OverlayStyle) -> list[Block]:
    """Method and scale of one map, or why it shows nothing."""
    blocks: list[Block] = [Words(text=saliency.full_title, size=1.25, colour=WHITE)]
    if saliency.is_blank:
        blocks.append(Words(text=condition_words(saliency), colour=AMBER, box=DARK))
    else:
        scale = scale_of(saliency, style.normalisations)
        low, high = saliency.visible_range
        unit = f" ({saliency.unit})" if saliency.unit else ""
        blocks += [
            Bar(palette=style.palette, title=_bar_title(scale), ticks=_ticks(scale)),
            *_scale_words(scale, high),
            Words(text=f"Raw range {raw(low)} to {raw(high)}{unit}"),
            _colour_words(style),
        ]
    if saliency.baseline:
        blocks.append(Words(text=f"Compared with: {saliency.baseline}", size=0.85))
    return blocks


def condition_words(saliency: SaliencyMap) -> str:
    """Why a map shows nothing, as a sentence of its own."""
    words = saliency.condition.value
    return f"Nothing to show: {words}" if words else ""


def _colour_words(style: OverlayStyle) -> Words:
    return Words(text=f"Colour: {style.palette}, opacity 0 to {percent(style.opacity)} with the map")


def _bar_title(scale: Normalisation) -> str:
    if scale.kind == "per-map":
        return "Map value, and share of this map's maximum"
    if scale.kind == "shared":
        return f"Map value, and share of the largest in {scale.over}"
    return "Map value, and place on the fixed scale"


def _scale_words(scale: Normalisation, highest: float) -> list[Block]:
    """Which scale it is, unless it is the map's own, and how much of it this map uses."""
    if scale.kind == "per-map":
        return []
    words: list[Block] = [Words(text=_scale_name(scale), colour=WHITE)]
    if highest > scale.high:
        words.append(Words(text=f"Values over {raw(scale.high)} have the top colour"))
    elif scale.kind == "shared":
        words.append(Words(text=f"This map reaches {percent(highest / scale.high)} of the scale", colour=WHITE))
    return words


def _scale_name(scale: Normalisation) -> str:
    if scale.kind == "shared":
        return f"Shared scale over {_counted(scale.maps, 'map')} of {scale.over}: their colours can be compared"
    return f"Fixed scale {raw(scale.low)} to {raw(scale.high)}: colours can be compared between maps on it"


def panel_caption(explanation: Explanation, model: str, style: OverlayStyle) -> tuple[Block, ...]:
    """The words beside the maps of several methods."""
    blocks = [*warnings(style), *finding_words(explanation.finding), Rule()]
    blocks += _panel_scale_words(explanation, style)
    first = next((found[0] for found in explanation.regions if found), None)
    if first is not None:
        blocks.append(Words(text=f"Outline: {_panel_threshold_words(first)}"))
        most = max((len(found) for found in explanation.regions if found and found[0].of > len(found)), default=0)
        if most:
            blocks.append(Words(text=f"Of some maps only the {most} largest areas are outlined", colour=WHITE))
    for name in _same_evidence(explanation):
        blocks.append(Words(text=f"Same map, one piece of evidence: {name}", colour=AMBER, box=DARK))
    for method, reason in explanation.failures:
        blocks.append(Words(text=f"No map by {method}: {reason}", colour=AMBER))
    return (*blocks, *ending(model))


def _panel_scale_words(explanation: Explanation, style: OverlayStyle) -> list[Block]:
    scales = {one: scale_of(one, style.normalisations) for one in explanation.maps if not one.is_blank}
    if not scales:
        return []
    own = all(scale.kind == "per-map" for scale in scales.values())
    title = "Share of each map's own maximum" if own else "Share of each map's scale"
    ticks = tuple(percent(step / TICKS) for step in range(TICKS + 1))
    blocks: list[Block] = [Bar(palette=style.palette, title=title, ticks=ticks), _colour_words(style)]
    for saliency, scale in scales.items():
        if scale.kind != "per-map":
            kind = f"shared, over {_counted(scale.maps, 'map')} of {scale.over}" if scale.kind == "shared" else "fixed"
            words = f"{saliency.full_title}: scale {raw(scale.low)} to {raw(scale.high)} ({kind})"
            blocks.append(Words(text=words, colour=WHITE))
        elif not own:
            blocks.append(Words(text=f"{saliency.full_title}: its own maximum, not to be compared", colour=WHITE))
    return blocks


def notice_caption(title: str, lines: Sequence[str], style: OverlayStyle) -> tuple[Block, ...]:
    """The words of a notice: what didn't happen and why."""
    reasons = [Words(text=line, size=1.15, colour=WHITE) for line in lines]
    return (*warnings(style), Words(text=title, size=1.7, colour=AMBER, box=DARK), *reasons)


def tile_title(saliency: SaliencyMap, explanation: Explanation) -> str:
    """What stands over one map of a panel."""
    if saliency.is_blank:
        return f"{saliency.full_title}. {condition_words(saliency)}"
    group = next((group for group in explanation.equivalent if saliency.name in group), ())
    first = next((one for one in explanation.maps if one.name in group), saliency)
    if first is saliency:
        return saliency.full_title
    return f"{saliency.full_title}: same map as {first.full_title}"


def _same_evidence(explanation: Explanation) -> list[str]:
    titles = {saliency.name: saliency.full_title for saliency in explanation.maps}
    return [" = ".join(titles.get(name, name) for name in group) for group in explanation.equivalent]


def region_words(saliency: SaliencyMap, found: Sequence[AnyRegion]) -> list[Block]:
    """What is outlined, from where on, and the region with most evidence."""
    if saliency.is_blank:
        return []
    if not found:
        return [Words(text="No area is outlined", colour=WHITE)]
    main = found[0]
    blocks: list[Block] = [
        Words(text=f"Outline: {threshold_words(main)}"),
        Words(text=outlined(found), colour=WHITE),
        Words(
            text=f"Region {main.number} holds {percent(main.share)} of the map's evidence, {size(main)}", colour=WHITE
        ),
    ]
    if main.specks:
        specks = "1 speck" if main.specks == 1 else f"{main.specks} specks"
        blocks.append(Words(text=f"Not outlined: {specks} of under {percent(LEAST_SHARE)} of the evidence", size=0.85))
    return blocks


def threshold_words(region: AnyRegion) -> str:
    """What bounds a region, for people."""
    share = f"{percent(region.threshold_fraction)} of the map's maximum"
    if region.threshold_kind == "otsu":
        return f"Otsu's threshold, {share}"
    if region.threshold_kind == "fixed":
        return f"map value {raw(region.threshold_level)}, {share}"
    return share


def _panel_threshold_words(region: AnyRegion) -> str:
    if region.threshold_kind == "otsu":
        return "Otsu's threshold of each map"
    if region.threshold_kind == "fixed":
        return f"map value {raw(region.threshold_level)}"
    return f"{percent(region.threshold_fraction)} of each map's maximum"


def outlined(found: Sequence[AnyRegion]) -> str:
    """How many areas have an outline, and of how many."""
    if isinstance(found[0], VolumeRegion):
        largest = f"The {len(found)} largest of " if found[0].of > len(found) else ""
        return f"{largest}{_counted(found[0].of, 'region')} of the volume outlined"
    if found[0].of > len(found):
        return f"{len(found)} largest of {found[0].of} areas outlined"
    return f"{_counted(len(found), 'area')} outlined"


def size(region: AnyRegion) -> str:
    """A region's area or volume for people."""
    if isinstance(region, VolumeRegion):
        if region.volume_mm3 is None:
            return f"{region.volume_voxels:.0f} voxels (no spacing)"
        return f"{region.volume_mm3 / 1000:.1f} cm3" if region.volume_mm3 >= 1000 else f"{region.volume_mm3:.0f} mm3"
    if region.area_mm2 is None:
        return f"{region.area_pixels:.0f} pixels (no pixel spacing)"
    if region.area_mm2 >= 100:
        return f"{region.area_mm2 / 100:.1f} cm2"
    return f"{region.area_mm2:.1f} mm2"


def percent(fraction: float, threshold: float | None = None) -> str:
    """A fraction as a percentage in words, by the rule that reports keep, too (`cam_core.finding.percent`)."""
    return f"{figure(fraction, threshold)} %"


def raw(value: float) -> str:
    """A raw map value for people: three digits that count, in powers of ten only where it has to be."""
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        return f"{float(f'{value:.3g}'):.12g}"
    return f"{value:.3g}"


def _ticks(scale: Normalisation) -> tuple[str, ...]:
    shares = [step / TICKS for step in range(TICKS + 1)]
    return tuple(f"{raw(scale.low + share * (scale.high - scale.low))}  ({percent(share)})" for share in shares)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
