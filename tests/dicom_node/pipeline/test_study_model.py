"""What a model's card and the site's engine change in a study's answer: uncertainty, members, masked passes."""

import hashlib
import os

import pytest
import safetensors.torch
from study_answers import objects, run, texts

from cam_core.errors import DigestMismatch
from dicom_node.pipeline.explaining import classifier_of


@pytest.fixture
def ensemble_card(tiny_card, tmp_path):
    """The tiny model and one with other weights."""
    first = (tiny_card.parent / "weights.safetensors").read_bytes()
    state = {name: value * 1.1 for name, value in safetensors.torch.load(first).items()}
    second = safetensors.torch.save(state)
    folder = tmp_path / "ensemble"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(first)
    (folder / "second.safetensors").write_bytes(second)
    member = f'{{ weights = "second.safetensors", sha256 = "{hashlib.sha256(second).hexdigest()}" }}'
    table = f'\n[uncertainty]\nkind = "ensemble"\nmembers = [{member}]\n'
    (folder / "model.toml").write_text(tiny_card.read_text() + table)
    return folder / "model.toml"


def test_a_declared_uncertainty_reaches_rows_and_report(request_for, real_image, tiny_card, ensemble_card):
    asked = [real_image("RG1_UNCR.dcm")]
    plain, _ = run(request_for(asked))
    found, _ = run(request_for(asked, card=str(ensemble_card)))
    for before, after in zip(plain["summary"]["findings"], found["summary"]["findings"], strict=True):
        spread = after["uncertainty"]
        assert after["probability"] == before["probability"]
        assert (spread["kind"], spread["passes"]) == ("ensemble", 2)
        assert spread["low"] < spread["mean"] < spread["high"]
    words = texts(objects(found)[-1])
    assert "95 % interval of the score" in words
    assert "from 2 networks" in words


def test_a_faster_engine_is_recorded_with_its_deviation_and_changes_no_score(request_for, real_image):
    asked = [real_image("RG1_UNCR.dcm")]
    plain, _ = run(request_for(asked, methods=["score-cam"]))
    fused, _ = run(request_for(asked, methods=["score-cam"], forward={"engine": "fused", "precision": "bf16"}))
    scores = [[one["probability"] for one in each["summary"]["findings"]] for each in (plain, fused)]
    assert scores[0] == scores[1]
    for each, recorded in ((plain, False), (fused, True)):
        words = texts(objects(each)[-1])
        assert ("masked_passes=fused bf16" in words) == recorded
        assert ("masked_passes_deviation=" in words) == recorded


def test_a_model_that_the_engine_can_not_run_is_run_as_it_is(request_for, real_image, monkeypatch):
    monkeypatch.setattr("cam_core.runtimes.engines.ENGINES", {"model": "cam_core.runtimes.engines:unchanged"})
    asked = request_for([real_image("RG1_UNCR.dcm")], methods=["score-cam"], forward={"engine": "fused"})
    classifier_of.cache_clear()
    found, _ = run(asked)
    classifier_of.cache_clear()
    assert found["state"] == "done"
    assert "masked_passes=" not in texts(objects(found)[-1])


def test_a_member_that_changed_is_verified_anew(request_for, real_image, ensemble_card):
    run(request_for([real_image("RG1_UNCR.dcm")], card=str(ensemble_card)))
    member = ensemble_card.parent / "second.safetensors"
    member.write_bytes(b"other weights")
    os.utime(member, (1, 1))
    with pytest.raises(DigestMismatch, match="second"):
        run(request_for([real_image("RG1_UNCR.dcm")], card=str(ensemble_card)))
