"""The exception tree of the node: what failed, with its facts; knows nothing of how any of it is done.

DicomNodeError
├── ConfigurationError        problems
├── ReadingError              anything that a file from outside can do to a reader
│   ├── UnreadableFile        reason
│   ├── NotAnImage            sop_class
│   ├── UnsupportedObject     reason
│   ├── UndecodablePixels     transfer_syntax, reason
│   │   └── TruncatedPixels   expected, actual
│   └── ImageTooLarge         measure, value, limit
├── ObjectError               a result that may not be written: reason
├── ConditionError            a route's condition that is no sound expression (defined in routing)
├── NodeAlreadyRunning        folder
├── NoHeader                  files
├── ChildError                a child process did not do its request
│   ├── ChildCrashed          how
│   ├── ChildTimedOut         seconds
│   └── ChildFailed           reason, kind
└── ReceivingError            an instance from a peer that isn't taken
    ├── MissingUID            keyword
    │   ├── MissingStudyUID
    │   └── MissingSeriesUID
    ├── InvalidUID            keyword
    ├── IdentifierMismatch    keyword
    └── UnreadableDataSet     reason

An error's words never hold a patient's name, a path or a pixel, so that they may be logged and shown.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "ChildCrashed",
    "ChildError",
    "ChildFailed",
    "ChildTimedOut",
    "ConfigurationError",
    "DicomNodeError",
    "IdentifierMismatch",
    "ImageTooLarge",
    "InvalidUID",
    "MissingSeriesUID",
    "MissingStudyUID",
    "MissingUID",
    "NoHeader",
    "NodeAlreadyRunning",
    "NotAnImage",
    "ObjectError",
    "ReadingError",
    "ReceivingError",
    "TruncatedPixels",
    "UndecodablePixels",
    "UnreadableDataSet",
    "UnreadableFile",
    "UnsupportedObject",
]


class DicomNodeError(Exception):
    """Whatever this package refuses to go on with."""


class ConfigurationError(DicomNodeError):
    """A configuration that may not be used.

    Parameters
    ----------
    problems : sequence of str
        Every problem found, in the order of the file.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "; ".join(self.problems)


class ReadingError(DicomNodeError):
    """A file from outside that can't become an Image; the parent of all that `reading` raises."""


class UnreadableFile(ReadingError):
    """The bytes are no DICOM data set that may be parsed."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class NotAnImage(ReadingError):
    """A DICOM object without pixels of an image: a report, a presentation state, a document."""

    def __init__(self, sop_class: str) -> None:
        self.sop_class = sop_class
        super().__init__(sop_class)

    def __str__(self) -> str:
        return f"not an image: {self.sop_class}"


class UnsupportedObject(ReadingError):
    """An image of a kind that no model here reads."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class UndecodablePixels(ReadingError):
    """Pixels that the decoder of their transfer syntax refused."""

    def __init__(self, transfer_syntax: str, reason: str) -> None:
        self.transfer_syntax = transfer_syntax
        self.reason = reason
        super().__init__(transfer_syntax, reason)

    def __str__(self) -> str:
        return f"{self.reason} (transfer syntax {self.transfer_syntax})"


class TruncatedPixels(UndecodablePixels):
    """Fewer pixel bytes than rows, columns, samples and frames ask for."""

    def __init__(self, transfer_syntax: str, expected: int, actual: int) -> None:
        super().__init__(transfer_syntax, f"{actual} bytes of pixels where {expected} are needed")
        self.args = (transfer_syntax, expected, actual)
        self.expected = expected
        self.actual = actual


class ImageTooLarge(ReadingError):
    """A size over the limit, refused before anything of that size was allocated."""

    def __init__(self, measure: str, value: int, limit: int) -> None:
        self.measure = measure
        self.value = value
        self.limit = limit
        super().__init__(measure, value, limit)

    def __str__(self) -> str:
        return f"{self.measure} is {self.value}, the limit is {self.limit}"


class ObjectError(DicomNodeError):
    """A result object that may not be built or written."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


# receiving


class NoHeader(DicomNodeError):
    """None of a job's files can be parsed, so not even a status report can be made of it."""

    def __init__(self, files: int) -> None:
        self.files = files
        super().__init__(f"none of the {files} files can be parsed")


class NodeAlreadyRunning(DicomNodeError):
    """Another process works in the node's folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        super().__init__(f"another camnode runs in {folder}")


class ChildError(DicomNodeError):
    """A child process did not do its request; it costs one attempt of one job."""


class ChildCrashed(ChildError):
    """The process died."""

    def __init__(self, how: str) -> None:
        self.how = how
        super().__init__(f"the process that reads and infers died: {how}")


class ChildTimedOut(ChildError):
    """No answer within the wall time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"no answer within {seconds:g} s; the process that reads and infers was ended")


class ChildFailed(ChildError):
    """The process answered with an error."""

    def __init__(self, reason: str, kind: str) -> None:
        self.reason = reason
        self.kind = kind
        super().__init__(reason)


class ReceivingError(DicomNodeError):
    """An instance from a peer that isn't taken; the parent of all that `receiving` refuses."""


class MissingUID(ReceivingError):
    """An identifier that every composite instance has (PS3.3 A.1.2) is absent or empty."""

    def __init__(self, keyword: str) -> None:
        self.keyword = keyword
        super().__init__(keyword)

    def __str__(self) -> str:
        return f"{self.keyword} is missing"


class MissingStudyUID(MissingUID):
    """No Study Instance UID: the instance belongs to nothing."""


class MissingSeriesUID(MissingUID):
    """No Series Instance UID."""


class InvalidUID(ReceivingError):
    """An identifier that isn't a UID (PS3.5 section 9.1); its value is kept out of the words, it may hold anything."""

    def __init__(self, keyword: str) -> None:
        self.keyword = keyword
        super().__init__(keyword)

    def __str__(self) -> str:
        return f"{self.keyword} is not a UID"


class IdentifierMismatch(ReceivingError):
    """The data set names another instance or class than the request that carries it."""

    def __init__(self, keyword: str) -> None:
        self.keyword = keyword
        super().__init__(keyword)

    def __str__(self) -> str:
        return f"{self.keyword} differs between request and data set"


class UnreadableDataSet(ReceivingError):
    """The received bytes are no data set in the negotiated transfer syntax."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)
