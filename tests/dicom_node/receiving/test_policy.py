"""Who may associate."""

from typing import Any

import pytest

from dicom_node.config import Peer, ReceivingConfig
from dicom_node.receiving.policy import congested, decide

CT = Peer(name="ct", ae_title="CT1", role="sender", host="10.0.0.5")
WARD = Peer(name="ward", ae_title="DX", role="sender", subnet="10.1.0.0/16")
NAMED = Peer(name="named", ae_title="US", role="sender", host="us.example")
PACS = Peer(name="pacs", ae_title="PACS", host="10.0.0.9", port=104)
OPEN = ReceivingConfig()
CLOSED = ReceivingConfig(promiscuous=False)
TITLED = ReceivingConfig(called_ae_titles=("CAMNODE", "CAM2"))
PEERS = (CT, WARD, NAMED, PACS)


@pytest.mark.parametrize(
    ("calling", "called", "address", "config", "codes"),
    [
        ("ANYONE", "WHATEVER", "192.168.0.1", OPEN, None),
        ("ANYONE", "WHATEVER", "192.168.0.1", CLOSED, (1, 1, 3)),
        ("CT1", "WHATEVER", "10.0.0.5", CLOSED, None),
        (" CT1 ", "WHATEVER", "10.0.0.5", CLOSED, None),
        ("CT1", "WHATEVER", "10.0.0.6", CLOSED, (1, 1, 3)),
        ("CT1", "WHATEVER", "10.0.0.6", OPEN, (1, 1, 3)),
        ("CT1", "WHATEVER", "::ffff:10.0.0.5", OPEN, None),
        ("DX", "WHATEVER", "10.1.200.3", OPEN, None),
        ("DX", "WHATEVER", "10.2.0.1", OPEN, (1, 1, 3)),
        ("DX", "WHATEVER", "fe80::1%eth0", OPEN, (1, 1, 3)),
        ("US", "WHATEVER", "10.99.0.1", CLOSED, None),
        ("PACS", "WHATEVER", "10.0.0.77", CLOSED, None),
        ("ANYONE", "CAM2 ", "192.168.0.1", TITLED, None),
        ("ANYONE", "OTHER", "192.168.0.1", TITLED, (1, 1, 7)),
        ("CT1", "OTHER", "10.0.0.6", TITLED, (1, 1, 7)),
        ("DX", "WHATEVER", "not an address", OPEN, (1, 1, 3)),
    ],
)
def test_decides_with_the_codes_of_the_standard(
    calling: Any, called: Any, address: Any, config: Any, codes: Any
) -> None:
    rejection = decide(calling, called, address, PEERS, config)
    assert (rejection and (rejection.result, rejection.source, rejection.diagnostic)) == codes


def test_one_of_several_peers_with_a_title_is_enough() -> None:
    second = Peer(name="ct-b", ae_title="CT1", role="sender", host="10.0.0.6")
    assert decide("CT1", "X", "10.0.0.6", (CT, second), CLOSED) is None


def test_congestion_is_transient() -> None:
    config = ReceivingConfig(maximum_associations=2)
    assert congested(1, config) is None
    rejection = congested(2, config)
    assert (rejection.result, rejection.source, rejection.diagnostic) == (2, 3, 2)
