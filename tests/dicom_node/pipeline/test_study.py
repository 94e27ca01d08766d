"""What a study's files become: findings, refusals and failures, each an answer in objects."""

import hashlib
from pathlib import Path

import pytest
from pydicom import dcmread

from cam_core.errors import DigestMismatch, UnknownMethod
from dicom_node.errors import NoHeader
from dicom_node.pipeline.study import answer


def run(request):
    steps = []
    found = answer(request, lambda step, seconds: steps.append(step))
    return found, steps


def objects(found):
    return [dcmread(one["file"]) for one in found["results"]]


def texts(report):
    """All texts of a report."""
    found = []

    def walk(items):
        for item in items:
            found.append(str(item.get("TextValue", "")))
            found.extend(code.CodeMeaning for code in item.get("ConceptCodeSequence", []))
            walk(item.get("ContentSequence", []))

    walk(report.ContentSequence)
    return " | ".join(found)


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
    assert bad["reason"]
