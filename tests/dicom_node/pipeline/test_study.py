"""What a study's files become: findings, refusals and failures, each an answer in objects."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from study_answers import objects, run, texts

from cam_core.errors import DigestMismatch, UnknownMethod
from dicom_node.errors import NoHeader
from dicom_node.pipeline import reading
from dicom_node.pipeline.study import answer


def film_like(source, path, uid, **changes):
    """A copy of a film under another UID."""
    film = dcmread(source)
    film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = uid
    for keyword, value in changes.items():
        setattr(film, keyword, value)
    film.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def cut_film(real_image, tmp_path):
    """A film whose pixels end half way."""
    whole = film_like(real_image("RG1_UNCR.dcm"), tmp_path / "cut.dcm", "2.25.98")
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return whole


def outcome_codes(report):
    return {code for code in ("111241", "111242", "111243", "111244", "111222", "111223") if f'"{code}"' in report}


def test_a_chest_film_gets_pictures_and_two_reports(request_for, real_image):
    source = dcmread(real_image("RG1_UNCR.dcm"), stop_before_pixels=True)
    found, steps = run(request_for([real_image("RG1_UNCR.dcm")]))
    assert found["state"] == "done"
    assert [one["kind"] for one in found["results"]] == [
        "panel",
        "overlay",
        "overlay",
        "measurement-report",
        "measurement-report",
        "summary-report",
    ]
    first, fallback = (one for one in found["results"] if one["kind"] == "measurement-report")
    assert fallback["fallback_for"] == first["sop_instance_uid"] != fallback["sop_instance_uid"]
    for made in objects(found):
        assert (made.StudyInstanceUID, made.PatientID) == (source.StudyInstanceUID, source.PatientID)
    nodule, effusion = found["summary"]["findings"]
    assert nodule["present"]
    assert not effusion["present"]
    assert (nodule["uncertainty"], nodule["borderline"]) == (None, False)
    assert set(found["summary"]["timings"]) == set(steps)
    assert found["summary"]["device"] == "cpu"
    assert any("one and the same map" in words for words in found["summary"]["warnings"])


def test_the_pictures_of_two_films_are_counted_through(request_for, real_image, tmp_path):
    second = dcmread(real_image("RG1_UNCR.dcm"))
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = "2.25.99"
    second.save_as(tmp_path / "second.dcm", enforce_file_format=True)
    found, _ = run(request_for([real_image("RG1_UNCR.dcm"), tmp_path / "second.dcm"]))
    pictures = [made for made in objects(found) if made.Modality == "OT"]
    assert [int(made.InstanceNumber) for made in pictures] == [1, 2, 3, 4, 5, 6]
    assert len({made.SourceImageSequence[0].ReferencedSOPInstanceUID for made in pictures}) == 2


def test_a_second_run_makes_the_same_bytes(request_for, real_image):
    digests = []
    for _ in range(2):
        found, _ = run(request_for([real_image("RG1_UNCR.dcm")]))
        digests.append([hashlib.sha256(Path(one["file"]).read_bytes()).hexdigest() for one in found["results"]])
    assert digests[0] == digests[1]


def test_other_inputs_or_settings_make_other_uids(request_for, real_image):
    def uids(**changes):
        found, _ = run(request_for([real_image("RG1_UNCR.dcm")], **changes))
        return {one["sop_instance_uid"] for one in found["results"]}

    first = uids()
    assert uids(job_id="a replay") == first
    assert not first & uids(source_digest="e" * 64)
    assert not first & uids(settings_digest="t" * 64)


def test_no_finding_is_said_and_draws_nothing(request_for, real_image, quiet_card):
    found, _ = run(request_for([real_image("RG1_UNCR.dcm")], card=str(quiet_card)))
    assert found["state"] == "done"
    assert [one["kind"] for one in found["results"]] == ["summary-report"]
    assert "No finding reached its threshold" in texts(objects(found)[0])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("CT_small.dcm", "Modality CT is not in the model's indication"),
        ("MR2_UNCR.dcm", "Modality MR is not in the model's indication"),
        ("reportsi.dcm", "no image that the model could read"),
        ("rtplan.dcm", "no image that the model could read"),
    ],
)
def test_what_is_not_for_the_model_is_refused_with_the_reason(request_for, real_image, name, words):
    found, _ = run(request_for([real_image(name)]))
    assert found["state"] == "refused"
    assert [one["kind"] for one in found["results"]] == ["notice", "summary-report"]
    assert words in found["reason"]
    assert words in texts(objects(found)[-1])


def test_the_notice_picture_is_the_site_s_choice(request_for, real_image):
    request = request_for([real_image("CT_small.dcm")])
    found, _ = run({**request, "output": {**request["output"], "notice_picture": False}})
    assert [one["kind"] for one in found["results"]] == ["summary-report"]


@pytest.mark.parametrize(("quiet", "summary"), [(True, "111243"), (False, "111244")])
def test_a_film_that_could_not_be_read_is_no_success(
    request_for, real_image, cut_film, tiny_card, quiet_card, quiet, summary
):
    card = quiet_card if quiet else tiny_card
    found, _ = run(request_for([real_image("RG1_UNCR.dcm"), cut_film], card=str(card)))
    assert found["state"] == "done"
    assert found["summary"]["status"] == "partly processed"
    assert "1 of 2 images could not be read" in found["summary"]["headline"]
    report = objects(found)[-1]
    assert outcome_codes(report.to_json()) == {summary, "111223"}
    assert "1 of 2 images could not be read: Its pixels can't be decoded" in texts(report)
    assert "Not read: " in texts(report)
    assert [one["sop_instance_uid"] for one in found["summary"]["left_out"]] == ["2.25.98"]


def test_images_beyond_the_limit_are_no_success(request_for, real_image, tmp_path, quiet_card, monkeypatch):
    monkeypatch.setattr(reading, "MAXIMUM_IMAGES", 1)
    second = film_like(real_image("RG1_UNCR.dcm"), tmp_path / "second.dcm", "2.25.97")
    found, _ = run(request_for([real_image("RG1_UNCR.dcm"), second], card=str(quiet_card)))
    assert outcome_codes(objects(found)[-1].to_json()) == {"111243", "111223"}
    assert "1 of 2 images could not be read: Only the first 1 images" in found["summary"]["headline"]


def test_a_file_that_may_be_a_film_counts_and_one_that_is_none_does_not(request_for, real_image, tmp_path):
    letter = tmp_path / "letter.dcm"
    letter.write_bytes(b"Dear colleague" * 100)
    request = request_for([real_image("RG1_UNCR.dcm"), letter])
    request["files"][1] |= {"sop_instance_uid": "2.25.7", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1"}
    film, _ = run(request)
    assert film["summary"]["status"] == "partly processed"
    assert film["summary"]["left_out"][0]["sop_instance_uid"] == "2.25.7"
    request["files"][1]["sop_class_uid"] = "1.2.840.10008.5.1.4.1.1.88.67"
    dose, _ = run(request)
    assert dose["summary"]["status"] == "processed"


def test_that_only_the_first_frame_was_read_stands_in_the_summary(request_for, real_image, tmp_path):
    twice = dcmread(real_image("RG1_UNCR.dcm"))
    twice.NumberOfFrames = 2
    twice.PixelData *= 2
    twice.save_as(tmp_path / "twice.dcm", enforce_file_format=True)
    found, _ = run(request_for([tmp_path / "twice.dcm"]))
    (summary,) = (
        item for item in objects(found)[-1].ContentSequence if item.ConceptNameCodeSequence[0].CodeMeaning == "Summary"
    )
    assert any("Only the first of 2 frames was read" in item.get("TextValue", "") for item in summary.ContentSequence)


def test_a_broken_number_of_frames_stops_nothing(request_for, real_image, tmp_path, monkeypatch):
    header = reading.read_header

    def broken(path):
        found = header(path)
        found.add_new("NumberOfFrames", "LO", "1A")
        return found

    monkeypatch.setattr(reading, "read_header", broken)
    assert run(request_for([real_image("RG1_UNCR.dcm")]))[0]["state"] == "done"


@pytest.mark.parametrize("odd_pixels", [0, 100])
def test_a_blank_film_is_unusable(request_for, real_image, tmp_path, odd_pixels):
    film = dcmread(real_image("RG1_UNCR.dcm"))
    pixels = np.full((film.Rows, film.Columns), 900, np.uint16)
    pixels.flat[:odd_pixels] = 1200
    path = film_like(real_image("RG1_UNCR.dcm"), tmp_path / "blank.dcm", "2.25.96", PixelData=pixels.tobytes())
    found, _ = run(request_for([path]))
    assert (found["state"], found["summary"]["status"]) == ("refused", "images unusable")
    assert "blank" in found["reason"]
    report = objects(found)[-1].to_json()
    assert '"111101"' in report
    assert '"111220"' in report


def test_non_images_beside_a_film_are_listed_and_stop_nothing(request_for, real_image):
    found, _ = run(request_for([real_image("reportsi.dcm"), real_image("RG1_UNCR.dcm"), real_image("CT_small.dcm")]))
    assert found["state"] == "done"
    reasons = [one["reason"] for one in found["summary"]["left_out"]]
    assert len(reasons) == 2
    assert any("Modality CT" in reason for reason in reasons)


def test_truncated_pixels_are_refused_with_a_status_report(request_for, real_image, tmp_path):
    whole = real_image("RG1_UNCR.dcm").read_bytes()
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(whole[: len(whole) // 2])
    found, _ = run(request_for([cut]))
    assert found["state"] == "refused"
    assert found["summary"]["status"] in {"unsupported or undecodable object", "images unusable"}
    assert [one["kind"] for one in found["results"]] == ["notice", "summary-report"]


def test_a_transfer_syntax_without_decoder_is_refused_with_a_status_report(request_for, real_image, tmp_path):
    film = dcmread(real_image("RG1_UNCR.dcm"))
    film.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # MPEG2
    from pydicom.encaps import encapsulate

    film.PixelData = encapsulate([b"\0" * 100])
    film["PixelData"].is_undefined_length = True
    path = tmp_path / "mpeg.dcm"
    film.save_as(path, enforce_file_format=True)
    found, _ = run(request_for([path]))
    assert found["state"] == "refused"
    assert "transfer syntax" in found["reason"].lower()


def test_a_file_that_is_not_dicom_beside_a_film_is_listed(request_for, real_image, tmp_path):
    letter = tmp_path / "letter.dcm"
    letter.write_bytes(b"Dear colleague" * 100)
    found, _ = run(request_for([letter, real_image("RG1_UNCR.dcm")]))
    assert found["state"] == "done"
    assert "can't be read" in found["summary"]["left_out"][0]["reason"]
    with pytest.raises(NoHeader):
        run(request_for([letter]))


IDENTITY = {
    "StudyInstanceUID": "1.2.3",
    "SeriesInstanceUID": "1.2.3.4",
    "SOPInstanceUID": "1.2.3.4.5",
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1",
    "Modality": "CR",
    "PatientName": "山田^太郎",
    "PatientID": "P1",
    "AccessionNumber": "A1",
    "StudyDate": "20260101",
    "Rows": 7,
}


def test_a_study_that_can_not_be_parsed_is_answered_from_what_reception_kept(request_for, tmp_path):
    letter = tmp_path / "letter.dcm"
    letter.write_bytes(b"Dear colleague" * 100)
    found, _ = run(request_for([letter], identity=IDENTITY))
    assert (found["state"], found["summary"]["status"]) == ("refused", "unsupported or undecodable object")
    assert [one["kind"] for one in found["results"]] == ["notice", "summary-report"]
    for made in objects(found):
        assert (made.StudyInstanceUID, made.PatientID, made.AccessionNumber) == ("1.2.3", "P1", "A1")
        assert str(made.PatientName) == "山田^太郎"
    assert '"110521"' in objects(found)[-1].to_json()


def test_a_failure_is_reported_without_a_card_and_without_a_file(request_for, tmp_path):
    card = tmp_path / "model.toml"
    card.write_text("[model\n")
    asked = {"task": "report failure", "reason": "its card can't be read", "kind": "CardError"}
    found, _ = run(request_for([], card=str(card), model="chest", identity=IDENTITY, **asked))
    assert found["state"] == "failed"
    assert [one["kind"] for one in found["results"]] == ["notice", "summary-report"]
    assert "its card can't be read" in texts(objects(found)[-1])
    assert "Model chest" in texts(objects(found)[-1])
    assert found["summary"]["model"].startswith("chest")
    assert found["summary"]["model_sha256"] == "unknown"


@pytest.mark.parametrize(
    ("kind", "words", "coded"),
    [
        ("ChildTimedOut", "no answer within 600 s", "110527"),
        ("ChildCrashed", "the process that reads and infers died: over its memory", "110527"),
        ("ChildCrashed", "the process that reads and infers died: of SIGSEGV", "110501"),
        ("ChildFailed", "unforeseen", "110501"),
    ],
)
def test_a_failure_for_want_of_time_or_memory_is_coded_so(request_for, real_image, kind, words, coded):
    found, _ = run(request_for([real_image("RG1_UNCR.dcm")], task="report failure", reason=words, kind=kind))
    report = objects(found)[-1].to_json()
    assert f'"{coded}"' in report
    assert ('"110527"' in report) == (coded == "110527")


def test_another_card_with_the_same_weights_makes_other_uids(request_for, real_image, tiny_card, tmp_path):
    for name in ("model.toml", "weights.safetensors"):
        (tmp_path / name).write_bytes((tiny_card.parent / name).read_bytes())
    film = real_image("RG1_UNCR.dcm")

    def uids(card):
        found, _ = run(request_for([film], card=str(card)))
        return {one["sop_instance_uid"] for one in found["results"]}

    first = uids(tiny_card)
    assert uids(tmp_path / "model.toml") == first
    card = (tmp_path / "model.toml").read_text()
    (tmp_path / "model.toml").write_text(card.replace("pad_value = 0.0", "pad_value = 0.5"))
    assert not uids(tmp_path / "model.toml") & first


def test_the_report_names_the_card_by_its_digest(request_for, real_image, tiny_card):
    found, _ = run(request_for([real_image("RG1_UNCR.dcm")]))
    assert f"card_sha256={hashlib.sha256(tiny_card.read_bytes()).hexdigest()}" in texts(objects(found)[-1])


def test_a_refused_study_is_given_no_body_part_by_the_model(request_for, real_image, tmp_path):
    scan = dcmread(real_image("MR_small.dcm"))
    if "BodyPartExamined" in scan:
        del scan.BodyPartExamined
    scan.save_as(tmp_path / "mr.dcm")
    found, _ = run(request_for([tmp_path / "mr.dcm"]))
    notice, _ = objects(found)
    assert "BodyPartExamined" not in notice
    assert notice.ImageLaterality == "U"


def test_changed_weights_are_refused(request_for, real_image, tiny_card, tmp_path):
    for name in ("model.toml", "weights.safetensors"):
        (tmp_path / name).write_bytes((tiny_card.parent / name).read_bytes())
    with open(tmp_path / "weights.safetensors", "ab") as file:
        file.write(b"\0")
    with pytest.raises(DigestMismatch):
        run(request_for([real_image("RG1_UNCR.dcm")], card=str(tmp_path / "model.toml")))


def test_an_unknown_method_is_told(request_for, real_image):
    with pytest.raises(UnknownMethod):
        run(request_for([real_image("RG1_UNCR.dcm")], methods=["x-ray-vision"]))


def test_a_failure_is_reported_from_the_headers_alone(request_for, real_image):
    found, steps = run(request_for([real_image("RG1_UNCR.dcm")], task="report failure", reason="it died twice"))
    assert found["state"] == "failed"
    assert "decode" not in steps
    assert "it died twice" in texts(objects(found)[-1])
    assert [one["kind"] for one in found["results"]] == ["notice", "summary-report"]


def test_warming_tells_each_model_and_what_is_wrong_with_it(tiny_card, tmp_path):
    found = answer({"task": "warm", "cards": [str(tiny_card), str(tmp_path / "none.toml")], "device": "cpu"}, print)
    good, bad = found["models"]
    assert good["model"] == "tiny 0.1"
    assert good["masked_passes"] == "model fp32"
    assert bad["reason"]
