"""C-ECHO to peers that answer, refuse or keep silent."""

import socket
import time
from typing import Any

from dicom_node.config import Peer, SendingConfig
from dicom_node.sending.association import verify


def test_an_answer(provider: Any, config: SendingConfig) -> None:
    report = verify(provider().peer, config, "CAMNODE")
    assert report.reachable
    assert report.words == "answers"
    assert 0 < report.seconds < 2


def test_an_answer_that_is_a_failure(provider: Any, config: SendingConfig) -> None:
    report = verify(provider(echo=0x0122).peer, config, "CAMNODE")
    assert not report.reachable
    assert "0x0122" in report.words


def test_a_closed_port(config: SendingConfig) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    report = verify(Peer(name="p", ae_title="PACS", host="127.0.0.1", port=port), config, "CAMNODE")
    assert not report.reachable
    assert "no TCP connection" in report.words


def test_a_name_that_is_none(config: SendingConfig) -> None:
    report = verify(Peer(name="p", ae_title="PACS", host="no-such-host.invalid", port=104), config, "CAMNODE")
    assert not report.reachable
    assert "resolved" in report.words


def test_a_peer_without_an_address(config: SendingConfig) -> None:
    report = verify(Peer(name="p", ae_title="PACS", role="sender"), config, "CAMNODE")
    assert report.words == "the peer has no address"


def test_a_title_that_is_not_recognised(provider: Any, config: SendingConfig) -> None:
    report = verify(provider(require_calling_aet=["OTHER"]).peer, config, "CAMNODE")
    assert not report.reachable
    assert report.words == "association rejected: our AE title is not recognised"


def test_a_port_that_never_answers(config: SendingConfig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        peer = Peer(name="p", ae_title="PACS", host="127.0.0.1", port=silent.getsockname()[1])
        started = time.monotonic()
        report = verify(peer, config, "CAMNODE")
        assert time.monotonic() - started < 10
    assert not report.reachable
    assert "no answer" in report.words
