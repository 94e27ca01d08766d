"""A study answered as a job's child does it, and what can be read off its objects; nothing here is a test."""

from pydicom import dcmread

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
