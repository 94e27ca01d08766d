"""Every quality measure with its definition, its source, its range and which way is good; computes nothing."""

from __future__ import annotations

from cam_core.quality.measure import Measure

BLANK = "the map has no positive value or is not finite"
FLAT = "a map is constant or not finite"
NO_JUDGE = "the mask is empty or covers everything, or the map is constant, not positive or not finite"

PETSIUK = "Petsiuk, Das, Saenko: RISE, BMVC 2018"
CHATTOPADHAY = "Chattopadhay et al.: Grad-CAM++, WACV 2018"
RONG = "Rong et al.: ROAD, ICML 2022"
POPPI = "Poppi et al.: Revisiting the evaluation of CAM, CVPR Workshops 2021"
ARUN = "Arun et al., Radiology: AI 2021;3(6):e200267"
SAPORTA = "Saporta et al.: CheXlocalize, Nature Machine Intelligence 2022"
ADEBAYO = "Adebayo et al.: Sanity checks for saliency maps, NeurIPS 2018"
WANG = "Wang et al.: structural similarity, IEEE TIP 2004"
HOUSE = "this project"

FAITHFULNESS = (
    Measure(
        name="deletion",
        title="Deletion AUC",
        definition="area under p against the part of the cells replaced by the baseline, the highest M first",
        source=PETSIUK,
        range=(0.0, 1.0),
        better="lower",
        undefined=FLAT,
    ),
    Measure(
        name="insertion",
        title="Insertion AUC",
        definition="area under p against the part of the cells put into the baseline, the highest M first",
        source=PETSIUK,
        range=(0.0, 1.0),
        better="higher",
        undefined=FLAT,
    ),
    Measure(
        name="average-drop",
        title="Average drop",
        definition="max(0, p - q) / p, with q the score of the image seen through U",
        source=CHATTOPADHAY,
        range=(0.0, 1.0),
        better="lower",
        undefined=f"{BLANK}, or p is not positive",
    ),
    Measure(
        name="increase",
        title="Increase in confidence",
        definition="1 where q > p, else 0",
        source=CHATTOPADHAY,
        range=(0.0, 1.0),
        better="higher",
        undefined=BLANK,
    ),
    Measure(
        name="road-morf",
        title="ROAD, most relevant first",
        definition="mean over 10..90 % of p(highest M removed and imputed) - p",
        source=RONG,
        range=(-1.0, 1.0),
        better="lower",
        undefined=FLAT,
    ),
    Measure(
        name="road-lerf",
        title="ROAD, least relevant first",
        definition="mean over 10..90 % of p(lowest M removed and imputed) - p",
        source=RONG,
        range=(-1.0, 1.0),
        better="higher",
        undefined=FLAT,
    ),
    Measure(
        name="road-combined",
        title="ROAD combined",
        definition="(least relevant first - most relevant first) / 2",
        source=RONG,
        range=(-0.5, 0.5),
        better="higher",
        undefined=FLAT,
    ),
)

COMPLEXITY = (
    Measure(
        name="complexity",
        title="Complexity",
        definition="mean of U",
        source=POPPI,
        range=(0.0, 1.0),
        better="lower",
        undefined=BLANK,
    ),
    Measure(
        name="coherency",
        title="Coherency",
        definition="(1 + r(M, M')) / 2, with M' the map of the image seen through U",
        source=POPPI,
        range=(0.0, 1.0),
        better="higher",
        undefined=FLAT,
    ),
    Measure(
        name="adcc",
        title="ADCC",
        definition="harmonic mean of coherency, 1 - complexity and 1 - average drop",
        source=POPPI,
        range=(0.0, 1.0),
        better="higher",
        undefined="one of the three is undefined",
    ),
    Measure(
        name="arcc",
        title="ARCC",
        definition="harmonic mean of coherency, 1 - complexity and ROAD combined, doubled and cut off to 0..1",
        source="pytorch-grad-cam, which names arXiv:2605.14641",
        range=(0.0, 1.0),
        better="higher",
        undefined="one of the three is undefined",
    ),
    Measure(
        name="gini",
        title="Gini index",
        definition="1 - 2 sum_i U_(i) / sum(U) (n - i + 1/2) / n, values in ascending order",
        source="Hurley, Rickard, IEEE TIT 2009; Chalasani et al., ICML 2020",
        range=(0.0, 1.0),
        better="higher",
        undefined=BLANK,
    ),
    Measure(
        name="entropy",
        title="Entropy",
        definition="-sum(u log u) / log n, with u = U / sum(U)",
        source="Bhatt, Weller, Moura, IJCAI 2020",
        range=(0.0, 1.0),
        better="lower",
        undefined=f"{BLANK}, or has one cell",
    ),
    Measure(
        name="effective-area",
        title="Effective area",
        definition="smallest part of the cells that holds half of sum(U)",
        source=HOUSE,
        range=(0.0, 1.0),
        better="neither",
        undefined=BLANK,
    ),
)

AGREEMENT = (
    Measure(
        name="spearman",
        title="Rank correlation",
        definition="Spearman's rho of two maps over their cells",
        source="Spearman 1904",
        range=(-1.0, 1.0),
        better="neither",
        undefined=FLAT,
    ),
    Measure(
        name="ssim",
        title="SSIM",
        definition="mean structural similarity of two maps, each stretched to 0..1, uniform window of 7 cells",
        source=WANG,
        range=(-1.0, 1.0),
        better="neither",
        undefined=f"{FLAT}, or is under 3 cells across",
    ),
    Measure(
        name="top-iou",
        title="IoU of top areas",
        definition="intersection over union of the highest tenths of two maps",
        source=HOUSE,
        range=(0.0, 1.0),
        better="neither",
        undefined=FLAT,
    ),
    Measure(
        name="class-sensitivity",
        title="Likeness between labels",
        definition="mean |r| of the maps of different labels, one method, one image",
        source=f"{HOUSE}; cf. Sixt, Granz, Landgraf, ICML 2020",
        range=(0.0, 1.0),
        better="lower",
        undefined="fewer than two labels have a map that varies",
    ),
    Measure(
        name="disagreement",
        title="Disagreement of families",
        definition="mean, where any U reaches 1/2, of the standard deviation of U over independent families",
        source=HOUSE,
        range=(0.0, 0.5),
        better="lower",
        undefined="fewer than two families have a map with a positive value",
    ),
)

STABILITY = (
    Measure(
        name="stability-ssim",
        title="Stability, SSIM",
        definition="mean SSIM of M(x) and T^-1 M(T x) over small changes T with |p(x) - p(T x)| under the tolerance",
        source=f"{HOUSE}; SSIM: {WANG}",
        range=(-1.0, 1.0),
        better="higher",
        undefined="no change counts, or every compared map is constant",
    ),
    Measure(
        name="stability-spearman",
        title="Stability, rank correlation",
        definition="the same with Spearman's rho",
        source=HOUSE,
        range=(-1.0, 1.0),
        better="higher",
        undefined="no change counts, or every compared map is constant",
    ),
    Measure(
        name="repeatability",
        title="Repeatability across models",
        definition="mean SSIM over pairs of models of their maps of one image",
        source=ARUN,
        range=(-1.0, 1.0),
        better="higher",
        undefined="fewer than two models, or every compared map is constant",
    ),
)

SANITY = (
    Measure(
        name="randomised-ssim",
        title="SSIM to random weights",
        definition="SSIM of M and the map when every layer, from the output down, is random; to be under the pass line",
        source=f"{ADEBAYO}; {ARUN}",
        range=(-1.0, 1.0),
        better="lower",
        undefined=FLAT,
    ),
    Measure(
        name="randomised-spearman",
        title="Rank correlation to random weights",
        definition="the same with Spearman's rho; near 0 is good, negative means inverted",
        source=ADEBAYO,
        range=(-1.0, 1.0),
        better="neither",
        undefined=FLAT,
    ),
    Measure(
        name="pass-line",
        title="Pass line",
        definition="mean SSIM of 50 random pairs of maps of different images on the trained model",
        source=ARUN,
        range=(-1.0, 1.0),
        better="neither",
        undefined="fewer than two images, or every pair has a constant map",
    ),
)

LOCALISATION = (
    Measure(
        name="iou",
        title="IoU",
        definition="|A and G| / |A or G|, with A the stretched map over the threshold (Otsu's, or fixed)",
        source=SAPORTA,
        range=(0.0, 1.0),
        better="higher",
        undefined=NO_JUDGE,
    ),
    Measure(
        name="dice",
        title="Dice",
        definition="2 |A and G| / (|A| + |G|)",
        source="Dice 1945",
        range=(0.0, 1.0),
        better="higher",
        undefined=NO_JUDGE,
    ),
    Measure(
        name="pointing",
        title="Pointing game",
        definition="1 where the maximum of M is in G or within the tolerance of it, else 0",
        source=f"Zhang et al., IJCV 2018; {SAPORTA}",
        range=(0.0, 1.0),
        better="higher",
        undefined=NO_JUDGE,
    ),
    Measure(
        name="energy-inside",
        title="Energy inside",
        definition="sum(U in G) / sum(U)",
        source="Wang et al.: Score-CAM, CVPR Workshops 2020",
        range=(0.0, 1.0),
        better="higher",
        undefined=NO_JUDGE,
    ),
    Measure(
        name="auprc",
        title="AUPRC",
        definition="average precision of the cells; chance is the share of G",
        source=ARUN,
        range=(0.0, 1.0),
        better="higher",
        undefined=NO_JUDGE,
    ),
    Measure(
        name="rank-accuracy",
        title="Relevance rank accuracy",
        definition="part of the |G| highest cells of M that is in G",
        source="Arras, Osman, Samek, Information Fusion 2022",
        range=(0.0, 1.0),
        better="higher",
        undefined=NO_JUDGE,
    ),
)

ARTEFACTS = (
    Measure(
        name="outside-body",
        title="Share outside the body",
        definition="sum(U outside the body) / sum(U)",
        source=HOUSE,
        range=(0.0, 1.0),
        better="lower",
        undefined=f"{BLANK}, or the body can't be told from the pixels",
    ),
    Measure(
        name="on-lettering",
        title="Share on letters",
        definition="sum(U on boxes around burned-in letters and markers) / sum(U)",
        source=HOUSE,
        range=(0.0, 1.0),
        better="lower",
        undefined=f"{BLANK}, or no letters were found",
    ),
    Measure(
        name="on-border",
        title="Share at the border",
        definition="sum(U within 3 % of the in-plane edges) / sum(U)",
        source=HOUSE,
        range=(0.0, 1.0),
        better="lower",
        undefined=BLANK,
    ),
)

MEASURES: dict[str, Measure] = {
    one.name: one
    for group in (FAITHFULNESS, COMPLEXITY, AGREEMENT, STABILITY, SANITY, LOCALISATION, ARTEFACTS)
    for one in group
}
"""Name to measure, in the order of a report."""


def measure_named(name: str) -> Measure:
    """The measure of a name.

    Raises
    ------
    KeyError
        Naming those that exist.
    """
    if name not in MEASURES:
        raise KeyError(f"unknown measure {name!r}; known: {', '.join(MEASURES)}")
    return MEASURES[name]
