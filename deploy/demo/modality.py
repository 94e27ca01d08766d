"""A modality for the demonstration and the benchmarks: sends files to the node, one association a study."""

from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.data import get_testdata_file
from pynetdicom import AE


def demonstration_files() -> dict[str, Path]:
    """A real PA chest radiograph, and a CT and an MR slice that a chest radiograph model has to refuse."""
    import data_store  # noqa: PLC0415 - PyPI's pydicom-data: its files lie beside this module

    films = Path(data_store.__file__).parent / "data"
    return {
        "chest radiograph (CR)": films / "RG1_UNCR.dcm",
        "CT slice": Path(str(get_testdata_file("CT_small.dcm"))),
        "shoulder MR": films / "MR2_UNCR.dcm",
    }


def study_uid(path: Path) -> str:
    """The Study Instance UID of a file."""
    return str(dcmread(path, stop_before_pixels=True).StudyInstanceUID)


def send(paths: Sequence[Path], port: int, ae_title: str = "CAMNODE") -> list[int]:
    """C-STORE files over one association; returns the statuses. Raises `ConnectionError` when there is none."""
    ae = AE(ae_title="MODALITY")
    data_sets = [dcmread(path) for path in paths]
    for data_set in data_sets:
        ae.add_requested_context(data_set.SOPClassUID, data_set.file_meta.TransferSyntaxUID)
    assoc = ae.associate("127.0.0.1", port, ae_title=ae_title)
    if not assoc.is_established:
        raise ConnectionError("the node does not accept the association")
    try:
        return [int(assoc.send_c_store(data_set).Status) for data_set in data_sets]
    finally:
        assoc.release()
