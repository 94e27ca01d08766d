"""What is written beside a picture of an explanation; knows no pixels, and nothing of the patient."""

from __future__ import annotations

from collections.abc import Sequence

from cam_core.explanation import Explanation
from cam_core.finding import Finding
from cam_core.finding import percent as figure
from cam_core.legend import AMBER, DARK, RED, WHITE, Bar, Block, Rule, Words
from cam_core.picture import OverlayStyle
from cam_core.saliency import LEAST_SHARE, Region, SaliencyMap

NOT_PRIMARY = "AI explanation, not for primary diagnosis"
NOT_TRUTH = "The map explains the model; it is not ground truth."
DEMONSTRATION = "DEMONSTRATION ONLY, NOT FOR CLINICAL USE"
BLANK = "No positive evidence for this finding in this map"

TICKS = 4
"""Steps of the colour bar."""


def warnings(style: OverlayStyle) -> list[Block]:
    """The boxes that every picture begins with."""
    boxes: list[Block] = [Words(text=NOT_PRIMARY, colour=AMBER, box=DARK)]
    if style.demonstration_only:
        boxes.insert(0, Words(text=DEMONSTRATION, colour=WHITE, box=RED))
    return boxes


def _finding_words(finding: Finding) -> list[Block]:
    certainty = f"Certainty {percent(finding.probability, finding.label.threshold)}"
    if finding.uncertainty is not None:
        certainty += f" ± {percent(finding.uncertainty)}"
    relation = "at or above" if finding.present else "below"
    return [
        Words(text=finding.label.name, size=1.6, colour=WHITE),
        Words(text=certainty, size=1.25, colour=WHITE),
        Words(text=f"{relation} the threshold of {percent(finding.label.threshold)}"),
    ]


def overlay_caption(
    saliency: SaliencyMap, finding: Finding, found: Sequence[Region], model: str, style: OverlayStyle
) -> tuple[Block, ...]:
    """The words beside one overlay."""
    blocks = [
        *warnings(style),
        *_finding_words(finding),
        Rule(),
        Words(text=saliency.full_title, size=1.25, colour=WHITE),
    ]
    if saliency.is_blank:
        blocks.append(Words(text=BLANK, colour=AMBER, box=DARK))
    else:
        blocks += [
            Bar(palette=style.palette, title="Map value, and share of this map's maximum", ticks=_raw_ticks(saliency)),
            Words(text=f"Raw range {_raw(float(saliency.values.min()))} to {_raw(float(saliency.values.max()))}"),
            Words(text=f"Colour: {style.palette}, opacity 0 to {percent(style.opacity)} with the map"),
            *_region_words(found),
        ]
    if saliency.baseline:
        blocks.append(Words(text=f"Compared with: {saliency.baseline}", size=0.85))
    return (*blocks, Rule(), Words(text=f"Model {model}", colour=WHITE), Words(text=NOT_TRUTH, colour=AMBER))


def panel_caption(explanation: Explanation, model: str, style: OverlayStyle) -> tuple[Block, ...]:
    """The words beside the maps of several methods."""
    blocks = [*warnings(style), *_finding_words(explanation.finding), Rule()]
    if any(not saliency.is_blank for saliency in explanation.maps):
        blocks += [
            Bar(
                palette=style.palette,
                title="Share of each map's own maximum",
                ticks=tuple(percent(step / TICKS) for step in range(TICKS + 1)),
            ),
            Words(text=f"Colour: {style.palette}, opacity 0 to {percent(style.opacity)} with the map"),
        ]
        level = next((found[0].threshold_fraction for found in explanation.regions if found), None)
        if level is not None:
            blocks.append(Words(text=f"Outline: {percent(level)} of each map's maximum"))
        most = max((len(found) for found in explanation.regions if found and found[0].of > len(found)), default=0)
        if most:
            blocks.append(Words(text=f"Of some maps only the {most} largest areas are outlined", colour=WHITE))
    for name in _same_evidence(explanation):
        blocks.append(Words(text=f"Same map, one piece of evidence: {name}", colour=AMBER, box=DARK))
    for method, reason in explanation.failures:
        blocks.append(Words(text=f"No map by {method}: {reason}", colour=AMBER))
    return (*blocks, Rule(), Words(text=f"Model {model}", colour=WHITE), Words(text=NOT_TRUTH, colour=AMBER))


def notice_caption(title: str, lines: Sequence[str], style: OverlayStyle) -> tuple[Block, ...]:
    """The words of a notice: what didn't happen and why."""
    reasons = [Words(text=line, size=1.15, colour=WHITE) for line in lines]
    return (*warnings(style), Words(text=title, size=1.7, colour=AMBER, box=DARK), *reasons)


def tile_title(saliency: SaliencyMap, explanation: Explanation) -> str:
    """What stands over one map of a panel."""
    if saliency.is_blank:
        return f"{saliency.full_title}: {BLANK[0].lower()}{BLANK[1:]}"
    group = next((group for group in explanation.equivalent if saliency.name in group), ())
    first = next((one for one in explanation.maps if one.name in group), saliency)
    if first is saliency:
        return saliency.full_title
    return f"{saliency.full_title}: same map as {first.full_title}"


def _same_evidence(explanation: Explanation) -> list[str]:
    titles = {saliency.name: saliency.full_title for saliency in explanation.maps}
    return [" = ".join(titles.get(name, name) for name in group) for group in explanation.equivalent]


def _region_words(found: Sequence[Region]) -> list[Block]:
    if not found:
        return []
    main = found[0]
    blocks: list[Block] = [
        Words(text=f"Outline: {percent(main.threshold_fraction)} of the map's maximum"),
        Words(text=outlined(found), colour=WHITE),
        Words(
            text=f"Region {main.number} holds {percent(main.share)} of the map's evidence, {area(main)}", colour=WHITE
        ),
    ]
    if main.specks:
        specks = "1 speck" if main.specks == 1 else f"{main.specks} specks"
        blocks.append(Words(text=f"Not outlined: {specks} of under {percent(LEAST_SHARE)} of the evidence", size=0.85))
    return blocks


def outlined(found: Sequence[Region]) -> str:
    """How many areas have an outline, and of how many."""
    if found[0].of > len(found):
        return f"{len(found)} largest of {found[0].of} areas outlined"
    return "1 area outlined" if len(found) == 1 else f"{len(found)} areas outlined"


def area(region: Region) -> str:
    """A region's size for people."""
    if region.area_mm2 is None:
        return f"{region.area_pixels:.0f} pixels (no pixel spacing)"
    if region.area_mm2 >= 100:
        return f"{region.area_mm2 / 100:.1f} cm2"
    return f"{region.area_mm2:.1f} mm2"


def percent(fraction: float, threshold: float | None = None) -> str:
    """A fraction as a percentage in words, by the rule that reports keep, too (`cam_core.finding.percent`)."""
    return f"{figure(fraction, threshold)} %"


def _raw(value: float) -> str:
    return f"{value:.3g}"


def _raw_ticks(saliency: SaliencyMap) -> tuple[str, ...]:
    top = float(saliency.values.max())
    return tuple(f"{_raw(top * step / TICKS)}  ({percent(step / TICKS)})" for step in range(TICKS + 1))
