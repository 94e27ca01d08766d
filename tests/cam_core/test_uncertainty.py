"""The spread of a score is the one that its passes have, and leaves the score as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from math import exp, log, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from cam_core.augmentation import changed, draw
from cam_core.card import Augmentations, ModelCard, UncertaintySpecification, load_card
from cam_core.classifier import Classifier, open_classifier
from cam_core.errors import DigestMismatch, ExplanationFailed, ModelLoadError
from cam_core.finding import Uncertainty
from cam_core.image import Image, Volume
from cam_core.model_input import fitted, normalised
from cam_core.prediction import predict
from cam_core.runtimes.architectures.residual_gap import build
from cam_core.uncertainty import log_odds, summary, uncertainties

WriteCard = Callable[..., ModelCard]
SLOPES = np.array([4.0, -2.0, 1.0])


@dataclass
class Means:
    """Answers each label with its slope times the mean of the input; remembers how many came together."""

    card: ModelCard
    micro_batch: int = 5
    members: tuple[Classifier, ...] = ()
    slopes: np.ndarray = field(default_factory=lambda: SLOPES)
    together: list[int] = field(default_factory=list)

    def scores(self, batch: np.ndarray) -> np.ndarray:
        self.together.append(len(batch))
        return (batch.reshape(len(batch), -1).mean(axis=1, dtype=np.float64)[:, None] * self.slopes).astype(np.float32)

    def sampled_scores(self, batch: np.ndarray, seed: int) -> np.ndarray:
        return (self.scores(batch) + np.random.default_rng(seed).normal(0, 1, 3)).astype(np.float32)


def declared(card: ModelCard, **changes: object) -> ModelCard:
    """The card with fixed normalisation, so that the model sees display values, and an uncertainty."""
    plain = replace(card.input, normalisation="fixed", mean=(0.0,), sd=(1.0,))
    settings = {"kind": "test-time-augmentation", "passes": 16, "level": 0.95, "seed": 3} | changes
    return replace(card, input=plain, uncertainty=UncertaintySpecification(**settings))


def found(image: Image | Volume, classifier: Classifier) -> list[Uncertainty]:
    return [one.uncertainty for one in predict(image, classifier).findings]


def specification(passes: int, level: float = 0.95) -> UncertaintySpecification:
    return UncertaintySpecification(kind="ensemble", passes=passes, level=level)


# what the figures are


def test_the_summary_is_the_one_of_a_slow_calculation() -> None:
    odds = [0.3, -0.2, 1.4, 0.7, 0.1, 2.0, -0.9, 0.5, 0.6, 0.4]
    chances = [1 / (1 + exp(-one)) for one in odds]
    mean = sum(chances) / 10
    centre = sum(odds) / 10
    deviation = sqrt(sum((one - centre) ** 2 for one in odds) / 9)
    reach = 2.262157 * deviation * sqrt(1.1)  # Student's t, 9 degrees of freedom, 0.975
    made = summary(np.array(odds), specification(10))
    assert made.mean == pytest.approx(mean)
    assert made.sd == pytest.approx(sqrt(sum((one - mean) ** 2 for one in chances) / 9))
    assert made.low == pytest.approx(1 / (1 + exp(reach - centre)), rel=1e-5)
    assert made.high == pytest.approx(1 / (1 + exp(-reach - centre)), rel=1e-5)
    assert (made.kind, made.passes, made.level) == ("ensemble", 10, 0.95)


@pytest.mark.parametrize("passes", [4, 8, 16])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_interval_holds_the_next_pass_as_often_as_it_says(passes: int, level: float) -> None:
    odds = np.random.default_rng(1).normal(-1.0, 0.8, (6000, passes + 1))
    following = 1 / (1 + np.exp(-odds[:, -1]))
    made = [summary(row[:-1], specification(passes, level)) for row in odds]
    inside = np.mean([one.low <= one_more <= one.high for one, one_more in zip(made, following, strict=True)])
    assert inside == pytest.approx(level, abs=4 * sqrt(level * (1 - level) / 6000))


def test_passes_that_agree_leave_no_interval() -> None:
    made = summary(np.full(7, 0.37), specification(7))
    chance = 1 / (1 + exp(-0.37))
    assert made.sd == pytest.approx(0, abs=1e-15)
    assert (made.low, made.mean, made.high) == pytest.approx((chance,) * 3)


def test_log_odds_of_a_softmax() -> None:
    logits = np.random.default_rng(2).normal(0, 2, (5, 4))
    powers = np.exp(logits)
    chances = powers / powers.sum(axis=1, keepdims=True)
    assert log_odds(logits, "softmax") == pytest.approx(np.log(chances / (1 - chances)))
    assert log_odds(logits, "sigmoid") is logits
    assert log_odds(np.array([[800.0, 0.0, -800.0]]), "softmax")[0] == pytest.approx([800, -800, -1600])


def test_a_softmax_over_one_label_is_always_sure() -> None:
    made = summary(log_odds(np.array([[3.0], [4.0]]), "softmax")[:, 0], specification(2))
    assert (made.low, made.mean, made.high, made.sd) == (1, 1, 1, 0)


# test-time augmentation


def test_a_mean_that_hangs_on_the_brightness_has_a_known_deviation(write_card: WriteCard) -> None:
    card = declared(write_card(side=8), passes=4000, augmentations=Augmentations(brightness=0.1))
    image = Image(pixels=np.full((8, 8), 0.5, np.float32), spacing_mm=None)
    chance = 1 / (1 + exp(-4 * 0.5))
    slope = 4 * chance * (1 - chance)  # of the probability, by the mean; the curve bends it by less than a percent
    (first, *_) = found(image, Means(card))
    assert first.sd == pytest.approx(slope * 0.1 / sqrt(3), rel=0.03)
    assert first.mean == pytest.approx(chance, abs=0.003)
    middle, reach = (log(first.high / (1 - first.high)) + s * log(first.low / (1 - first.low)) for s in (1, -1))
    assert middle / 2 == pytest.approx(2.0, abs=0.02)
    assert reach / 2 == pytest.approx(1.96 * 4 * 0.1 / sqrt(3), rel=0.03)


@pytest.mark.parametrize("volume", [False, True])
def test_every_pass_is_asked_with_its_own_change(volume: bool, write_card: WriteCard, image: Image) -> None:
    wanted = Augmentations(shift=0.1, rotation=20, scale=0.1, brightness=0.1, contrast=0.2, noise=0.05)
    card = declared(write_card(side=16), passes=12, augmentations=wanted)
    subject: Image | Volume = image
    if volume:
        card = replace(card, input=replace(card.input, slices=6))
        voxels = np.stack([image.pixels * part for part in np.linspace(0.4, 1, 5)])
        subject = Volume(voxels=voxels.astype(np.float32), spacing_mm=(3.0, 0.5, 0.5))
    classifier = Means(card)
    picture = fitted(subject, card.input)
    means = []
    for number in range(12):
        change = draw(wanted, card.input.grid, np.random.default_rng((3, number)))
        means.append(normalised(changed(picture, change, 0.0), card.input).mean(dtype=np.float64))
    assert np.ptp(means) > 0.01
    for slope, one in zip(SLOPES, uncertainties(picture, classifier), strict=True):
        chances = [1 / (1 + exp(-slope * mean)) for mean in means]
        assert one is not None
        assert one.mean == pytest.approx(np.mean(chances), abs=1e-6)
        assert one.sd == pytest.approx(np.std(chances, ddof=1), abs=1e-6)
    assert classifier.together == [5, 5, 2]


def test_per_image_normalisation_comes_after_the_change(write_card: WriteCard, image: Image) -> None:
    card = write_card(side=16)
    wanted = UncertaintySpecification(
        kind="test-time-augmentation", passes=4, level=0.9, augmentations=Augmentations(shift=0.2, noise=0.2)
    )
    inputs: list[np.ndarray] = []

    class Looking(Means):
        def scores(self, batch: np.ndarray) -> np.ndarray:
            inputs.append(batch)
            return super().scores(batch)

    uncertainties(fitted(image, card.input), Looking(replace(card, uncertainty=wanted)))
    (batch,) = inputs
    assert batch.mean(axis=(1, 2, 3)) == pytest.approx([0] * 4, abs=1e-5)
    assert batch.std(axis=(1, 2, 3)) == pytest.approx([1] * 4, abs=1e-5)


# every kind

KINDS: Sequence[dict[str, object]] = (
    {"augmentations": Augmentations(shift=0.05, rotation=5, noise=0.02)},
    {"kind": "mc-dropout"},
)


@pytest.mark.parametrize("changes", KINDS)
def test_score_and_verdict_stay_those_of_the_plain_model(
    changes: dict[str, object], write_card: WriteCard, image: Image
) -> None:
    card = declared(write_card(), **changes)
    with_interval = predict(image, Means(card)).findings
    plain = predict(image, Means(replace(card, uncertainty=None))).findings
    assert tuple(replace(one, uncertainty=None) for one in with_interval) == plain
    assert all(one.uncertainty is None and not one.borderline for one in plain)
    assert all(one.uncertainty is not None and one.uncertainty.sd > 0 for one in with_interval)


@pytest.mark.parametrize("changes", KINDS)
def test_the_same_picture_has_the_same_interval_from_every_thread(
    changes: dict[str, object], write_card: WriteCard, image: Image
) -> None:
    classifier = Means(declared(write_card(), **changes))
    first = found(image, classifier)
    other = Image(pixels=image.pixels[::-1].copy(), spacing_mm=None)
    with ThreadPoolExecutor(4) as threads:
        several = list(threads.map(lambda each: found(each, classifier), [image, other] * 6))
    assert several[::2] == [first] * 6
    assert several[1::2] == [several[1]] * 6
    reseeded = Means(declared(write_card(), **changes, seed=4))
    assert found(image, reseeded) != first


def test_a_pass_that_is_not_a_number_is_no_interval(write_card: WriteCard, image: Image) -> None:
    class Broken(Means):
        def sampled_scores(self, batch: np.ndarray, seed: int) -> np.ndarray:
            return np.full((1, 3), np.nan, np.float32)

    with pytest.raises(ExplanationFailed, match="mc-dropout failed: some of the model's scores are not finite"):
        predict(image, Broken(declared(write_card(), kind="mc-dropout")))


# Monte Carlo dropout and ensembles of real models

OPTIONS = {
    "in_channels": 1,
    "n_labels": 3,
    "stem_channels": 4,
    "channels": [4, 6],
    "blocks": [1, 1],
    "strides": [2, 1],
    "dilations": [1, 1],
    "dropout": 0.4,
}


def network(seed: int, **changes: object) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build(OPTIONS | changes).eval()


def real_card(write_card: WriteCard, table: str, files: dict[str, bytes], **changes: object) -> ModelCard:
    """A card beside real weights, with more files and an uncertainty."""
    options = "\n".join(f"{key} = {value}" for key, value in (OPTIONS | changes).items())
    card = write_card(
        save(network(1, **changes).state_dict()),
        architecture="residual-gap",
        target="stages",
        options=f"[model.architecture_options]\n{options}",
    )
    for name, content in files.items():
        (card.path.parent / name).write_bytes(content)
    card.path.write_text(card.path.read_text() + table)
    return load_card(card.path)


DROPOUT = '[uncertainty]\nkind = "mc-dropout"\npasses = 6\nseed = 5\n'


def test_dropout_is_the_one_of_explicit_masks(write_card: WriteCard, image: Image) -> None:
    classifier = open_classifier(real_card(write_card, DROPOUT, {}), "cpu")
    module = network(1)
    (batch, head) = (normalised(fitted(image, classifier.card.input).values, classifier.card.input), module.head)
    logits = []
    with torch.no_grad():
        features = module.pool(module.stages(module.stem(torch.from_numpy(batch)))).flatten(1)
        for seed in np.random.SeedSequence(5).generate_state(6):
            source = torch.Generator().manual_seed(int(seed))
            kept = [0.0 if float(one) < 0.4 else 1 / 0.6 for one in torch.rand(features.shape, generator=source)[0]]
            logits.append(head(features * torch.tensor(kept))[0].double().numpy())
    for label, one in enumerate(found(image, classifier)):
        chances = [1 / (1 + exp(-each[label])) for each in logits]
        assert one.mean == pytest.approx(np.mean(chances), abs=1e-6)
        assert one.sd == pytest.approx(np.std(chances, ddof=1), abs=1e-6)
        assert one.sd > 0.001


def test_a_model_without_dropout_is_told_when_it_is_opened(write_card: WriteCard) -> None:
    with pytest.raises(ModelLoadError, match="declares mc-dropout, but the model has no dropout"):
        open_classifier(real_card(write_card, DROPOUT, {}, dropout=0.0), "cpu")


def members(**files: bytes) -> str:
    entries = ",\n".join(
        f'  {{ weights = "{name}", sha256 = "{hashlib.sha256(content).hexdigest()}" }}'
        for name, content in files.items()
    )
    return f'[uncertainty]\nkind = "ensemble"\nmembers = [\n{entries}\n]\n'


def test_an_ensemble_is_asked_member_by_member(write_card: WriteCard, image: Image) -> None:
    others = {"second": save(network(2).state_dict()), "third": save(network(3).state_dict())}
    classifier = open_classifier(real_card(write_card, members(**others), others), "cpu")
    batch = torch.from_numpy(normalised(fitted(image, classifier.card.input).values, classifier.card.input))
    with torch.no_grad():
        logits = np.stack([network(seed)(batch)[0].double().numpy() for seed in (1, 2, 3)])
    findings = predict(image, classifier).findings
    for label, one in enumerate(findings):
        chances = 1 / (1 + np.exp(-logits[:, label]))
        assert one.probability == pytest.approx(chances[0], abs=1e-6)
        assert one.uncertainty is not None
        assert one.uncertainty.mean == pytest.approx(chances.mean(), abs=1e-6)
        assert one.uncertainty.sd == pytest.approx(chances.std(ddof=1), abs=1e-6)
        assert one.uncertainty.passes == 3


def test_a_member_that_is_not_the_one_named_is_not_loaded(write_card: WriteCard, tmp_path: Path) -> None:
    others = {"second": save(network(2).state_dict())}
    card = real_card(write_card, members(**others), others)
    open_classifier(card, "cpu")
    (card.path.parent / "second").write_bytes(save(network(4).state_dict()))
    with pytest.raises(DigestMismatch, match="second: SHA-256 is"):
        open_classifier(card, "cpu")
    (card.path.parent / "second").unlink()
    with pytest.raises(ModelLoadError, match="second: can't be read"):
        open_classifier(card, "cpu")


def test_a_member_of_another_form_is_told_when_it_is_opened(write_card: WriteCard) -> None:
    others = {"second": save(network(2, n_labels=2).state_dict())}
    with pytest.raises(ModelLoadError, match="second: can't be loaded into 'residual-gap'"):
        open_classifier(real_card(write_card, members(**others), others), "cpu")


def test_onnx_members(
    write_card: WriteCard, export: Callable[..., bytes], modules: dict[str, Callable[[], torch.nn.Module]], image: Image
) -> None:
    exported = {name: export(modules[name]()) for name in ("linear", "layers")}
    card = write_card(exported["linear"], runtime="onnx", target=None)
    (card.path.parent / "second").write_bytes(exported["layers"])
    card.path.write_text(card.path.read_text() + members(second=exported["layers"]))
    classifier = open_classifier(load_card(card.path), "cpu")
    batch = torch.from_numpy(normalised(fitted(image, card.input).values, card.input))
    with torch.no_grad():
        both = [modules[name]()(batch)[0].sigmoid().numpy() for name in ("linear", "layers")]
    for label, one in enumerate(found(image, classifier)):
        assert one.mean == pytest.approx((both[0][label] + both[1][label]) / 2, abs=1e-5)
        assert one.passes == 2


def test_an_ensemble_with_members_missing_is_no_ensemble(write_card: WriteCard, image: Image) -> None:
    card = declared(write_card(), kind="ensemble", passes=3)
    with pytest.raises(ExplanationFailed, match="2 of 3 members are open"):
        predict(image, Means(card, members=(Means(card),)))
