"""Tests of the model card: everything wrong with it is told at once."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from cam_core.card import ModelCard, load_card, verify_digest
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
    verify_digest(card)
    card.weights.write_bytes(b"other weights")
    with pytest.raises(DigestMismatch) as caught:
        verify_digest(card)
    assert caught.value.expected == card.sha256
    assert caught.value.found in str(caught.value)
    card.weights.unlink()
    with pytest.raises(ModelLoadError, match="can't be read"):
        verify_digest(card)
