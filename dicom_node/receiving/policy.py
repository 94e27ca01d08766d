"""Who may associate: one pure decision from titles, address and configuration; opens no socket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dicom_node.config import Peer, ReceivingConfig


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """The three codes of an A-ASSOCIATE-RJ (PS3.8 Table 9-21) and the reason in words."""

    result: int
    source: int
    diagnostic: int
    words: str


def decide(
    calling_ae: str, called_ae: str, address: str, peers: Sequence[Peer], config: ReceivingConfig
) -> Rejection | None:
    """Decide whether an association may be negotiated.

    Parameters
    ----------
    calling_ae, called_ae : str
        AE titles of the request, PS3.8 section 9.3.2; padding is ignored.
    address : str
        The requestor's IP address.
    peers : sequence of Peer
        Known application entities. A title may appear several times: one match is enough.

    Returns
    -------
    Rejection or None
        None accepts. A called title is refused when `called_ae_titles` is set and lacks it; a calling title when it is
        unknown and the node isn't promiscuous, or when it is known with an address and calls from elsewhere.
    """
    calling_ae, called_ae = calling_ae.strip(), called_ae.strip()
    if config.called_ae_titles and called_ae not in config.called_ae_titles:
        return Rejection(result=1, source=1, diagnostic=7, words="called AE title not recognised")
    known = [peer for peer in peers if peer.ae_title.strip() == calling_ae]
    if not known:
        if config.promiscuous:
            return None
        return Rejection(result=1, source=1, diagnostic=3, words="calling AE title not recognised")
    if any(_comes_from(peer, address) for peer in known):
        return None
    return Rejection(result=1, source=1, diagnostic=3, words="calling AE title known, but not from this address")


def congested(open_associations: int, config: ReceivingConfig) -> Rejection | None:
    """Refuse for now when `maximum_associations` are already open (local limit exceeded, transient)."""
    if open_associations < config.maximum_associations:
        return None
    return Rejection(result=2, source=3, diagnostic=2, words="too many associations at the moment")


def _comes_from(peer: Peer, address: str) -> bool:
    """Whether `address` may be this peer: within its subnet or equal to its host, when either is given as numbers.

    Only a sender is held to its host: an archive's host is where it is reached, and it may call from elsewhere.
    A host given by name can't be compared without asking the network, so it doesn't restrict; use `subnet`.
    """
    try:
        caller = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(caller, IPv6Address) and caller.ipv4_mapped is not None:
        caller = caller.ipv4_mapped
    if peer.subnet is not None:
        return caller in ip_network(peer.subnet, strict=False)
    if peer.role != "sender" or peer.host is None:
        return True
    try:
        return caller == ip_address(peer.host)
    except ValueError:
        return True
