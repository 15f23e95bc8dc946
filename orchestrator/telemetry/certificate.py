"""When a certificate expires, read from its PEM with no library: four steps into its DER."""

import ssl
from datetime import UTC, datetime

_BEGIN = "-----BEGIN CERTIFICATE-----"
_END = "-----END CERTIFICATE-----"
_SEQUENCE, _UTC_TIME, _VERSION = 0x30, 0x17, 0xA0


def not_after(pem: str) -> datetime:
    """The end of the first certificate's validity (RFC 5280, 4.1.2.5). Raises ValueError."""
    begin = pem.find(_BEGIN)
    end = pem.find(_END, begin)
    if begin < 0 or end < 0:
        raise ValueError("no certificate in PEM")
    der = ssl.PEM_cert_to_DER_cert(pem[begin : end + len(_END)] + "\n")
    try:
        to_be_signed = _inside(_inside(der, _SEQUENCE), _SEQUENCE)
        fields = list(_fields(to_be_signed))
        first = 1 if fields[0][0] == _VERSION else 0
        validity = fields[first + 3][1]  # behind number, signature algorithm and issuer
        tag, text = list(_fields(validity))[1]
    except IndexError:
        raise ValueError("no X.509 certificate") from None
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC)


def _inside(der: bytes, tag: int) -> bytes:
    found, value = _fields(der)[0]
    if found != tag:
        raise ValueError("no X.509 certificate")
    return value


def _fields(der: bytes) -> list[tuple[int, bytes]]:
    """The values one behind the other: tag and content."""
    found, at = [], 0
    while at < len(der):
        tag, size = der[at], der[at + 1]
        at += 2
        if size & 0x80:
            digits = size & 0x7F
            size = int.from_bytes(der[at : at + digits])
            at += digits
        found.append((tag, der[at : at + size]))
        at += size
    return found
