"""What reception kept becomes a header; what says nothing of whose study it is does not."""

from dicom_node.pipeline.identity import header_of


def test_texts_are_taken_and_nothing_else():
    header = header_of({"PatientName": "山田^太郎", "PatientID": "P1", "Rows": 7, "ImageType": ["A"], "StudyID": ""})
    assert {element.keyword for element in header} == {"SpecificCharacterSet", "PatientName", "PatientID"}
    assert (str(header.PatientName), header.SpecificCharacterSet) == ("山田^太郎", "ISO_IR 192")


def test_a_date_that_is_none_breaks_nothing():
    assert header_of({"StudyDate": "yesterday"}).StudyDate == "yesterday"
