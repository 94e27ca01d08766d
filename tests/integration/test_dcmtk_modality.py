"""DCMTK as modality and as archive: another implementation than ours at the other end of every association."""

import socket
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.config import Peer, ReceivingConfig, SendingConfig
from dicom_node.receiving.instance import StoreOutcome
from dicom_node.receiving.listener import Listener
from dicom_node.receiving.part10 import part10_prefix
from dicom_node.sending.association import verify
from dicom_node.sending.outcome import ObjectOutcomeKind, Outgoing
from dicom_node.sending.transfer import send

pytestmark = pytest.mark.component
SENDING = SendingConfig(acse_timeout=10, dimse_timeout=10, network_timeout=20, connection_timeout=5)


def _file(name: str) -> Path:
    """One of the real images of pydicom or of pydicom-data; skips when the latter isn't installed."""
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"{name} is not here: pydicom-data is not installed")
    return Path(path)


def _data_set(path: Path) -> bytes:
    """What follows preamble and group 2."""
    whole = path.read_bytes()
    assert whole[128:132] == b"DICM"
    assert whole[132:138] == b"\x02\x00\x00\x00UL"
    return whole[144 + int.from_bytes(whole[140:144], "little") :]


@pytest.fixture
def node() -> Iterator[Any]:
    """Starts a listener; gives it with what it received and reported."""
    running = []

    def _start(store: Any = None, **settings: Any) -> Any:
        received, events = [], []

        def _store(instance: Any) -> Any:
            received.append(instance)
            return StoreOutcome.STORED if store is None else store(instance)

        config = ReceivingConfig(**{"host": "127.0.0.1", "port": 0, **settings})
        listener = Listener(config, [], _store, events.append)
        listener.start()
        running.append(listener)
        return listener, received, events

    yield _start
    for listener in running:
        listener.stop(grace_seconds=0)


def _run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60, check=False)


def test_echoscu(node: Any, program: Callable[..., Any]) -> None:
    listener, _, events = node()
    for title in ("CAMNODE", "OTHER", "X"):
        assert _run(program("echoscu"), "-aec", title, "127.0.0.1", listener.port).returncode == 0
    assert [event.called_ae for event in events if event.kind.value == "accepted"] == ["CAMNODE", "OTHER", "X"]


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("RG1_UNCI.dcm", "-xe"),
        ("RG1_J2KR.dcm", "-xv"),
        ("RG1_J2KI.dcm", "-xw"),
        ("MR_small.dcm", "-xe"),
        ("MR_small_RLE.dcm", "-xr"),
        ("MR_small_jpeg_ls_lossless.dcm", "-xt"),
        ("JPEG-LL.dcm", "-xs"),
        ("MR_small_bigendian.dcm", "-xb"),
        ("SC_jpeg_no_color_transform.dcm", "-xy"),
    ],
)
def test_storescu_in_its_own_transfer_syntax(
    node: Any, program: Callable[..., Any], tmp_path: Path, name: str, option: Any
) -> None:
    path = tmp_path / name  # in the form DCMTK sends: explicit lengths, no trailing padding
    assert _run(program("dcmconv"), "+e", "-p", _file(name), path).returncode == 0
    listener, received, _ = node()
    result = _run(program("storescu"), "-R", option, "-aet", "CT1", "-aec", "CAMNODE", "127.0.0.1", listener.port, path)
    assert result.returncode == 0, result.stderr
    (instance,) = received
    original = dcmread(path)
    assert instance.transfer_syntax_uid == original.file_meta.TransferSyntaxUID
    assert (instance.calling_ae, instance.called_ae) == ("CT1", "CAMNODE")
    assert instance.study_instance_uid == original.StudyInstanceUID
    assert instance.encoded == _data_set(path)
    assert instance.attributes.get("Modality") == original.get("Modality") or None
    stored = tmp_path / "stored.dcm"
    stored.write_bytes(part10_prefix(instance) + instance.encoded)
    again = dcmread(stored)
    assert again.PixelData == original.PixelData
    assert again == original
    checked = _run(program("dcmdump"), "+P", "0002,0016", stored)
    assert checked.returncode == 0
    assert "CT1" in checked.stdout


@pytest.mark.parametrize(("option", "syntax"), [("-xi", ImplicitVRLittleEndian), ("-x=", ExplicitVRLittleEndian)])
def test_storescu_converting(node: Any, program: Callable[..., Any], option: Any, syntax: Any) -> None:
    path = _file("RG1_UNCR.dcm")
    listener, received, _ = node()
    result = _run(program("storescu"), "-R", option, "127.0.0.1", listener.port, path)
    assert result.returncode == 0, result.stderr
    assert received[0].transfer_syntax_uid == syntax
    assert received[0].attributes["PatientID"] == dcmread(path, stop_before_pixels=True).PatientID


def test_storescu_deflated(node: Any, program: Callable[..., Any]) -> None:
    path = _file("RG1_UNCR.dcm")
    listener, received, _ = node()
    result = _run(program("storescu"), "-R", "-xd", "127.0.0.1", listener.port, path)
    assert result.returncode == 0, result.stderr
    (instance,) = received
    assert instance.transfer_syntax_uid == "1.2.840.10008.1.2.1.99"
    assert instance.attributes["Rows"] == dcmread(path, stop_before_pixels=True).Rows
    assert dcmread(path).PixelData in zlib.decompress(instance.encoded, -zlib.MAX_WBITS)


def test_dcmsend_of_many_files_over_one_association(node: Any, program: Callable[..., Any]) -> None:
    files = [
        _file(name) for name in ("MR_small.dcm", "CT_small.dcm", "RG1_UNCI.dcm", "JPEG2000.dcm", "MR_small_RLE.dcm")
    ]
    listener, received, events = node()
    result = _run(program("dcmsend"), "--decompress-never", "127.0.0.1", listener.port, *files)
    assert result.returncode == 0, result.stderr
    assert len(received) == len(files)
    deadline = time.monotonic() + 5
    while events[-1].kind.value != "released" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert events[-1].instances == len(files)
    assert [event.kind.value for event in events] == ["accepted", "released"]


def test_one_association_per_image_from_several_modalities(node: Any, program: Callable[..., Any]) -> None:
    path, storescu = _file("MR_small.dcm"), program("storescu")
    listener, received, events = node()

    def _modality(number: Any) -> Any:
        return _run(storescu, "-aet", f"MR{number}", "+II", "127.0.0.1", listener.port, path).returncode

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(_modality, range(20))) == [0] * 20
    assert len({instance.sop_instance_uid for instance in received}) == 20
    assert {event.calling_ae for event in events} == {f"MR{number}" for number in range(20)}


def test_dcmtk_understands_our_refusals(node: Any, program: Callable[..., Any], tmp_path: Path) -> None:
    listener, received, events = node(called_ae_titles=("CAMNODE",))
    storescu = program("storescu")
    wrong = _run(storescu, "-v", "-aec", "OTHER", "127.0.0.1", listener.port, _file("MR_small.dcm"))
    assert wrong.returncode != 0
    assert "Called AE Title Not Recognized" in wrong.stdout + wrong.stderr
    assert events[0].kind.value == "rejected"

    ds = dcmread(_file("MR_small.dcm"))
    del ds.StudyInstanceUID
    homeless = tmp_path / "homeless.dcm"
    ds.save_as(homeless)
    refused = _run(storescu, "-d", "-aec", "CAMNODE", "127.0.0.1", listener.port, homeless)
    assert "0xa900" in (refused.stdout + refused.stderr).lower()
    assert received == []


def test_dcmtk_is_told_when_there_is_no_room(node: Any, program: Callable[..., Any]) -> None:
    listener, _, _ = node(store=lambda instance: StoreOutcome.OUT_OF_RESOURCES)
    result = _run(program("storescu"), "-d", "127.0.0.1", listener.port, _file("MR_small.dcm"))
    assert "0xa700" in (result.stdout + result.stderr).lower()


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="TCP_QUICKACK is Linux only")
def test_a_stock_dcmsend_is_not_slowed_down(node: Any, program: Callable[..., Any], tmp_path: Path) -> None:
    ds, files = dcmread(_file("CT_small.dcm")), []
    for number in range(60):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number + 1}"
        files.append(tmp_path / f"{number}.dcm")
        ds.save_as(files[-1])
    listener, received, _ = node()
    started = time.monotonic()
    assert _run(program("dcmsend"), "127.0.0.1", listener.port, *files).returncode == 0
    assert len(received) == 60
    assert time.monotonic() - started < 60 * 0.030, "delayed acknowledgements would cost 60 times 40 ms"


@pytest.fixture
def storescp(program: Any, tmp_path: Path) -> Iterator[Any]:
    """Starts DCMTK's storescp in an empty folder; gives its peer and the folder."""
    processes = []

    def _start(*options: Any) -> Any:
        folder = tmp_path / f"archive{len(processes)}"
        folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [program("storescp"), "-aet", "ARCHIVE", "-od", str(folder), *options, str(port)]
        processes.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        peer = Peer(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=port)
        deadline = time.monotonic() + 10
        while not verify(peer, SENDING, "CAMNODE").reachable:
            assert time.monotonic() < deadline, "storescp did not start"
            time.sleep(0.1)
        return peer, folder

    yield _start
    for process in processes:
        process.terminate()
        process.wait(10)


def _outgoing(path: Path, fallback: Outgoing | None = None) -> Outgoing:
    ds = dcmread(path, stop_before_pixels=True)
    return Outgoing(
        path=path,
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
        fallback=fallback,
    )


def test_files_reach_storescp_bit_by_bit(storescp: Any) -> None:
    peer, folder = storescp("+xa", "+B")
    files = [_file(name) for name in ("RG1_UNCI.dcm", "CT_small.dcm", "MR_small_jpeg_ls_lossless.dcm", "RG1_J2KR.dcm")]
    report = send(peer, [_outgoing(path) for path in files], SENDING, "CAMNODE")
    assert report.all_taken, report
    stored = {dcmread(path, stop_before_pixels=True).SOPInstanceUID: path for path in folder.iterdir()}
    assert len(stored) == len(files)
    for path in files:
        assert _data_set(stored[dcmread(path, stop_before_pixels=True).SOPInstanceUID]) == _data_set(path)


def test_storescp_with_implicit_vr_only_gets_re_encoded_data(storescp: Any) -> None:
    peer, folder = storescp("+xi")
    path = _file("CT_small.dcm")
    report = send(peer, [_outgoing(path)], SENDING, "CAMNODE")
    assert report.all_taken
    assert report.objects[0].sent_transfer_syntax_uid == ImplicitVRLittleEndian
    (stored,) = folder.iterdir()
    assert dcmread(stored).PixelData == dcmread(path).PixelData


def test_storescp_without_a_compressed_syntax_gets_the_fallback(storescp: Any) -> None:
    peer, folder = storescp()
    plain = _outgoing(_file("CT_small.dcm"))
    report = send(
        peer,
        [_outgoing(_file("MR_small_RLE.dcm"), fallback=plain), _outgoing(_file("MR_small_RLE.dcm"))],
        SENDING,
        "CAMNODE",
    )
    assert [outcome.kind for outcome in report.objects] == [ObjectOutcomeKind.TAKEN, ObjectOutcomeKind.PERMANENT]
    assert report.objects[0].used_fallback
    assert len(list(folder.iterdir())) == 1


def test_storescp_that_refuses_every_association(storescp: Any, program: Callable[..., Any]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [program("storescp"), "--refuse", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        peer = Peer(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=port)
        deadline = time.monotonic() + 10
        while (report := verify(peer, SENDING, "CAMNODE")).words.startswith("no TCP"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert report.words.startswith("association rejected")
    finally:
        process.terminate()
        process.wait(10)


def test_storescp_that_aborts_after_the_object(storescp: Any) -> None:
    peer, _ = storescp("--abort-after")
    sr = Outgoing(
        path=_file("CT_small.dcm"),
        sop_class_uid=str(ComprehensiveSRStorage),
        sop_instance_uid="1.2.3",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
    )
    report = send(peer, [_outgoing(_file("CT_small.dcm")), _outgoing(_file("MR_small.dcm")), sr], SENDING, "CAMNODE")
    assert [outcome.kind for outcome in report.objects] == [ObjectOutcomeKind.TRANSIENT] * 3
    assert report.objects[0].status is None


def test_storescp_to_which_many_small_objects_go_promptly(storescp: Any, tmp_path: Path) -> None:
    peer, _ = storescp("--ignore")
    ds, objects = dcmread(_file("CT_small.dcm")), []
    for number in range(60):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number + 1}"
        path = tmp_path / f"{number}.dcm"
        ds.save_as(path)
        objects.append(_outgoing(path))
    started = time.monotonic()
    assert send(peer, objects, SENDING, "CAMNODE").all_taken
    assert time.monotonic() - started < 60 * 0.030
