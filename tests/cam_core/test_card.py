"""Tests of the model card: everything wrong with it is told at once."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from cam_core.card import Augmentations, ModelCard, UncertaintySpecification, load_card, verified_weights
from cam_core.errors import CardError, DigestMismatch, ModelLoadError

GOOD = """
[model]
name = "chest"
version = "1.2"
manufacturer = "someone"
runtime = "torch"
weights = "weights.safetensors"
sha256 = "{digest}"
architecture = "residual-gap"
target_layer = "stages"
license = "Apache-2.0"
[model.architecture_options]
channels = [8, 8]
[input]
rows = 64
columns = 48
channels = 1
normalisation = "fixed"
mean = [0.5]
sd = [0.25]
[[labels]]
name = "Nodule"
code = {{ value = "27925004", scheme = "SCT", meaning = "Nodule" }}
threshold = 0.4
[intended_use]
statement = "Adults."
modalities = ["CR", "DX"]
minimum_age_years = 18
finding_site = {{ value = "39607008", scheme = "SCT", meaning = "Lung" }}
[training]
data = "films"
""".format(digest="A" * 64)


def written(folder: Path, text: str) -> Path:
    path = folder / "model.toml"
    path.write_text(text)
    return path


def test_a_good_card(tmp_path: Path) -> None:
    card = load_card(written(tmp_path, GOOD))
    assert (card.name, card.version, card.demonstration_only, card.runtime) == ("chest", "1.2", False, "torch")
    assert card.weights == tmp_path.resolve() / "weights.safetensors"
    assert card.sha256 == "a" * 64
    assert card.architecture_options == {"channels": [8, 8]}
    assert (card.input.rows, card.input.columns, card.input.fit, card.input.mean) == (64, 48, "pad", (0.5,))
    assert card.labels[0].code.value == "27925004"
    assert card.labels[0].threshold == 0.4
    assert card.activation == "sigmoid"
    assert card.intended_use.modalities == ("CR", "DX")
    assert card.intended_use.minimum_age_years == 18
    assert card.intended_use.finding_site is not None
    assert card.training.data == "films"
    assert pickle.loads(pickle.dumps(card)) == card  # noqa: S301 - our own value, as it goes to a child process


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace('name = "chest"', 'nom = "chest"').replace("rows = 64", 'rows = "64"')
    text = text.replace("threshold = 0.4", "threshold = 1.4").replace('"%s"' % ("A" * 64), '"12"')
    text = text.replace('meaning = "Nodule"', 'meaning = ""') + "\n[surprise]\nkey = 1\n"
    with pytest.raises(CardError) as caught:
        load_card(written(tmp_path, text))
    found = "\n".join(caught.value.problems)
    for words in (
        "[model] name: is missing",
        "[model] nom: is not a known key",
        "[input] rows: must be a whole number",
        "[labels] 1, threshold: must be 1 or less",
        "[model] sha256: must be 64 hexadecimal digits",
        "[labels] 1, code, meaning: must not be empty",
        "[surprise]: is not a known key",
    ):
        assert words in found
    assert caught.value.path == tmp_path / "model.toml"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("weights.safetensors", "../weights.safetensors", "without leaving its folder"),
        ("weights.safetensors", "/etc/passwd", "without leaving its folder"),
        ("weights.safetensors", "C:weights", "without leaving its folder"),
        ('architecture = "residual-gap"', "", "'architecture' is missing"),
        ('target_layer = "stages"', "", "'target_layer' is missing"),
        ('runtime = "torch"', 'runtime = "onnx"', "an onnx model has no 'architecture'"),
        ('runtime = "torch"', 'runtime = "tf"', "must be 'torch' or 'onnx'"),
        ("sd = [0.25]", "sd = [0.0]", "must be above 0"),
        ("sd = [0.25]", "", "needs 'mean' and 'sd' with 1 number(s)"),
        ('normalisation = "fixed"', 'normalisation = "per-image"', 'belong to normalisation "fixed"'),
        ("minimum_age_years = 18", "minimum_age_years = 18\nmaximum_age_years = 3", "is above 'maximum_age_years'"),
        ("channels = 1", "channels = 2", "must be 1 or 3"),
        ("threshold = 0.4", "threshold = nan", "must be a finite number"),
        ("[training]", "[training", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in GOOD
    with pytest.raises(CardError) as caught:
        load_card(written(tmp_path, GOOD.replace(old, new)))
    assert words in str(caught.value)


AUGMENTED = """
[uncertainty]
kind = "test-time-augmentation"
passes = 8
[uncertainty.augmentations]
shift = 0.02
rotation = 3
mirror_invariant = true
"""
DROPOUT = """
[uncertainty]
kind = "mc-dropout"
passes = 20
seed = 9
level = 0.9
"""
ENSEMBLE = """
[uncertainty]
kind = "ensemble"
members = [
  {{ weights = "second.safetensors", sha256 = "{second}" }},
  {{ weights = "more/third.safetensors", sha256 = "{third}" }},
]
""".format(second="B" * 64, third="c" * 64)


def test_what_a_card_says_of_uncertainty(tmp_path: Path) -> None:
    assert load_card(written(tmp_path, GOOD)).uncertainty is None
    assert load_card(written(tmp_path, GOOD + AUGMENTED)).uncertainty == UncertaintySpecification(
        kind="test-time-augmentation",
        passes=8,
        level=0.95,
        augmentations=Augmentations(shift=0.02, rotation=3, mirror_invariant=True),
    )
    assert load_card(written(tmp_path, GOOD + DROPOUT)).uncertainty == UncertaintySpecification(
        kind="mc-dropout", passes=20, level=0.9, seed=9
    )


def test_an_ensemble_is_the_card_and_its_members(tmp_path: Path) -> None:
    card = load_card(written(tmp_path, GOOD + ENSEMBLE))
    assert card.uncertainty is not None
    assert card.uncertainty.passes == 3
    names = ("weights.safetensors", "second.safetensors", "more/third.safetensors")
    assert card.weights_files == tuple(tmp_path.resolve() / name for name in names)
    first, second = card.member_cards()
    assert (first.sha256, second.sha256) == ("b" * 64, "c" * 64)
    assert second.weights == card.weights_files[2]
    assert (first.uncertainty, first.labels, first.architecture) == (None, card.labels, card.architecture)
    assert pickle.loads(pickle.dumps(card)) == card  # noqa: S301 - our own value, as it goes to a child process


@pytest.mark.parametrize(
    ("table", "old", "new", "words"),
    [
        (DROPOUT, 'kind = "mc-dropout"', "", "[uncertainty]: 'kind' is missing"),
        (DROPOUT, "mc-dropout", "guessing", "[uncertainty]: 'kind' must be one of 'test-time-augmentation', 'mc-dr"),
        (DROPOUT, "passes = 20", "", "[uncertainty] mc-dropout, passes: is missing"),
        (DROPOUT, "passes = 20", "passes = 1", "passes: must be 2 or more"),
        (DROPOUT, "passes = 20", "passes = 65", "passes: must be 64 or less"),
        (DROPOUT, "seed = 9", "seed = 1000000", "seed: must be 999999 or less"),
        (DROPOUT, "level = 0.9", "level = 1.0", "level: must be 0.999 or less"),
        (DROPOUT, "level = 0.9", "members = []", "[uncertainty] mc-dropout, members: is not a known key"),
        (AUGMENTED, "shift = 0.02", "shift = 0.3", "augmentations, shift: must be 0.25 or less"),
        (AUGMENTED, "shift = 0.02", "blur = 1", "augmentations, blur: is not a known key"),
        (AUGMENTED, "rotation = 3", 'rotation = "3"', "augmentations, rotation: must be a number"),
        (AUGMENTED, "mirror_invariant = true", "mirror_invariant = 1", "mirror_invariant: must be true or false"),
        (ENSEMBLE, "second.safetensors", "../second.safetensors", "members, 1, weights: must name a file beside"),
        (ENSEMBLE, "c" * 64, "c" * 63, "members, 2, sha256: must be 64 hexadecimal digits"),
        (ENSEMBLE, "c" * 64, "b" * 64, "weights that differ from the model's and each other"),
        (ENSEMBLE, "c" * 64, "a" * 64, "weights that differ from the model's and each other"),
    ],
)
def test_what_is_wrong_with_the_uncertainty_is_said_in_plain_words(
    tmp_path: Path, table: str, old: str, new: str, words: str
) -> None:
    assert old in table
    with pytest.raises(CardError) as caught:
        load_card(written(tmp_path, GOOD + table.replace(old, new)))
    assert words in str(caught.value)


def test_an_uncertainty_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    nothing = AUGMENTED[: AUGMENTED.index("shift")]
    with pytest.raises(CardError, match="augmentations: at least one augmentation is needed"):
        load_card(written(tmp_path, GOOD + nothing))
    without = ENSEMBLE[: ENSEMBLE.index("members")] + "members = []\n"
    with pytest.raises(CardError, match="members: needs at least 1"):
        load_card(written(tmp_path, GOOD + without))


def test_dropout_can_only_go_on_in_torch(tmp_path: Path) -> None:
    text = GOOD.replace('runtime = "torch"', 'runtime = "onnx"').replace('architecture = "residual-gap"', "")
    text = text.replace("[model.architecture_options]\nchannels = [8, 8]\n", "")
    load_card(written(tmp_path, text))
    with pytest.raises(CardError, match="mc-dropout needs the torch runtime"):
        load_card(written(tmp_path, text + DROPOUT))


def test_members_that_a_link_leads_elsewhere_are_all_told(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "more").mkdir(parents=True)
    (folder / "second.safetensors").symlink_to(tmp_path / "outside")
    (folder / "more" / "third.safetensors").symlink_to(tmp_path / "outside")
    with pytest.raises(CardError) as caught:
        load_card(written(folder, GOOD + ENSEMBLE))
    words = "weights: must name a file beside the card, without leaving its folder"
    assert caught.value.problems == tuple(f"[uncertainty] members, {number}, {words}" for number in (1, 2))


def test_the_digests_of_all_members_are_verified(write_card: Callable[..., ModelCard]) -> None:
    card = write_card(b"some weights")
    other = card.path.parent / "second"
    other.write_bytes(b"other weights")
    digest = hashlib.sha256(b"other weights").hexdigest()
    table = f'[uncertainty]\nkind = "ensemble"\nmembers = [{{ weights = "second", sha256 = "{digest}" }}]\n'
    card.path.write_text(card.path.read_text() + table)
    (member,) = load_card(card.path).member_cards()
    assert verified_weights(member) == b"other weights"
    other.write_bytes(b"changed weights")
    with pytest.raises(DigestMismatch, match="second"):
        verified_weights(member)


def test_no_label(tmp_path: Path) -> None:
    labels = GOOD[GOOD.index("[[labels]]") : GOOD.index("[intended_use]")]
    with pytest.raises(CardError, match="at least one label is needed"):
        load_card(written(tmp_path, "labels = []\n" + GOOD.replace(labels, "")))


def test_two_labels_of_one_name(tmp_path: Path) -> None:
    label = GOOD[GOOD.index("[[labels]]") : GOOD.index("[intended_use]")]
    with pytest.raises(CardError, match="occur more than once: Nodule"):
        load_card(written(tmp_path, GOOD.replace("[intended_use]", label + "[intended_use]")))


def test_weights_that_a_link_leads_elsewhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"x")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.safetensors").symlink_to(tmp_path / "outside")
    with pytest.raises(CardError, match="without leaving its folder"):
        load_card(written(folder, GOOD))


def test_a_missing_card(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="can't be read"):
        load_card(tmp_path / "model.toml")


def test_the_digest_is_that_of_the_weights(write_card: Callable[..., ModelCard]) -> None:
    card = write_card(b"some weights")
    assert verified_weights(card) == b"some weights"
    card.weights.write_bytes(b"other weights")
    with pytest.raises(DigestMismatch) as caught:
        verified_weights(card)
    assert caught.value.expected == card.sha256
    assert caught.value.found in str(caught.value)
    card.weights.unlink()
    with pytest.raises(ModelLoadError, match="can't be read"):
        verified_weights(card)
