"""When a certificate expires."""

from datetime import UTC, datetime

import pytest

from orchestrator.telemetry.certificate import not_after

# openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=r1 -days 30
SOON = """-----BEGIN CERTIFICATE-----
MIIBcDCCARWgAwIBAgIURBjv2hjRlBvujasoM0NRml4RIZIwCgYIKoZIzj0EAwIw
DTELMAkGA1UEAwwCcjEwHhcNMjYxMTI2MDc0ODA0WhcNMjYxMjI2MDc0ODA0WjAN
MQswCQYDVQQDDAJyMTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABGj5AyZH2HmH
9Q1AQsLWY3IdDKrb+4GXN5t+COkL85K8go1Jrc/Kdur40cyMF/VIBDulm/8S03hq
iewZVmhhsEajUzBRMB0GA1UdDgQWBBQKDAvBnuUMoy/tJfZvHiqnCYuKHjAfBgNV
HSMEGDAWgBQKDAvBnuUMoy/tJfZvHiqnCYuKHjAPBgNVHRMBAf8EBTADAQH/MAoG
CCqGSM49BAMCA0kAMEYCIQCLYG1B+l+GUU/+kQ4dDZChs4DT+2KDjymcFlST+O8L
ZAIhAI/Unq9JldWT4y0afFoPAaL84354Noj6PJ/n37q/FKJt
-----END CERTIFICATE-----
"""
SOON_AT = datetime(2026, 12, 26, 7, 48, 4, tzinfo=UTC)
LATE = """-----BEGIN CERTIFICATE-----
MIIBcTCCARegAwIBAgIUY17u8JdPpQQRphgQPMJTnkJd+/QwCgYIKoZIzj0EAwIw
DTELMAkGA1UEAwwCcjEwIBcNMjYxMTI2MDc0ODA1WhgPMjA1OTEwMDQwNzQ4MDVa
MA0xCzAJBgNVBAMMAnIxMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEg0ssjfnW
ly5gqsIUApzq6+7ISKgFCAx1eX/eQs3NNbVwEsg5TxovQGF5rmOowtFxZAjE4Yr5
fUTAIymj5i5J9aNTMFEwHQYDVR0OBBYEFKHCJwaB0mTSpQDzt1i1f3xJsGKsMB8G
A1UdIwQYMBaAFKHCJwaB0mTSpQDzt1i1f3xJsGKsMA8GA1UdEwEB/wQFMAMBAf8w
CgYIKoZIzj0EAwIDSAAwRQIhAOFwj2C9XYzTjbU1tf0tIzDhhU/U96+XiM3mVxK8
tg5JAiBILclTOP6BAEsz5Y5hdY7Va6xQoa+y2HizOOHyClVLJg==
-----END CERTIFICATE-----
"""  # behind 2050, and so written with four digits
LATE_AT = datetime(2059, 10, 4, 7, 48, 5, tzinfo=UTC)


@pytest.mark.parametrize(("pem", "at"), [(SOON, SOON_AT), (LATE, LATE_AT)])
def test_the_end_of_its_validity_is_read(pem: str, at: datetime) -> None:
    assert not_after(pem) == at


def test_of_a_chain_the_first_counts_whatever_stands_before_it() -> None:
    assert not_after(f"subject=r1\n{SOON}{LATE}") == SOON_AT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-----BEGIN CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nBAA=\n-----END CERTIFICATE-----",
    ],
)
def test_what_is_no_certificate_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # what it says is Python's
        not_after(text)
