"""API keys: hashed at rest, read again when they change."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core import SpecError
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.keys import EVERYBODY, Keys, key_line, new_key, read_keys
from orchestrator.telemetry import Log, open_log

KEY = "sk-0123456789abcdef"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = open_log("test", tmp_path / "log")
    yield log
    log.close()


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_known_key_is_its_tenants_and_only_its_hash_is_stored(tmp_path: Path, log: Log) -> None:
    line = key_line("ada", KEY)
    assert KEY not in line
    path = write(tmp_path / "keys", "# ours", "", line, key_line("bob", "sk-b"))
    keys = Keys(str(path), log)
    assert keys.check(f"Bearer {KEY}") == "ada"
    assert keys.check(f"bearer  {KEY} ") == "ada"
    assert keys.check("Bearer sk-b") == "bob"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "Bearer sk-wrongfcc2",
            "Authentication Fails, Your api key: ****fcc2 is invalid",
        ),
        (None, "Authentication Fails (auth header format should be Bearer sk-...)"),
        ("", "Authentication Fails (auth header format should be Bearer sk-...)"),
        ("Basic abc", "Authentication Fails (auth header format should be Bearer sk-...)"),
        ("Bearer ", "Authentication Fails (auth header format should be Bearer sk-...)"),
    ],
)
def test_any_other_is_refused_in_the_official_words(
    tmp_path: Path, log: Log, header: str | None, message: str
) -> None:
    keys = Keys(str(write(tmp_path / "keys", key_line("ada", KEY))), log)
    refused = keys.check(header)
    assert isinstance(refused, ApiError)
    assert (refused.status, refused.message, refused.type) == (
        401,
        message,
        "authentication_error",
    )


def test_without_keys_everybody_may_come_in_and_the_log_says_so(tmp_path: Path, log: Log) -> None:
    keys = Keys(None, log)
    assert keys.check(None) == EVERYBODY
    assert '"event":"api_open"' in (tmp_path / "log").read_text()


def test_changed_keys_are_in_force_at_the_next_look_and_broken_ones_never(
    tmp_path: Path, log: Log
) -> None:
    path = write(tmp_path / "keys", key_line("ada", KEY))
    keys = Keys(str(path), log)
    write(path, key_line("bob", "sk-b"), "# changed")
    keys.look()
    assert isinstance(keys.check(f"Bearer {KEY}"), ApiError)
    assert keys.check("Bearer sk-b") == "bob"
    write(path, "this is no key")
    keys.look()
    path.unlink()
    keys.look()
    assert keys.check("Bearer sk-b") == "bob"
    assert (tmp_path / "log").read_text().count('"event":"not_reloaded"') == 2


def test_a_mounted_secret_is_read_and_its_exchange_noticed(tmp_path: Path, log: Log) -> None:
    """Kubernetes puts the files of a Secret behind a link, `..data`, and exchanges that."""
    for version, name in (("..1", "ada"), ("..2", "bob")):
        (tmp_path / version).mkdir()
        write(tmp_path / version / "keys", key_line(name, KEY))
    (tmp_path / "secret").mkdir()
    link = tmp_path / "secret" / "..data"
    link.symlink_to(tmp_path / "..1")
    (tmp_path / "secret" / "keys").symlink_to("..data/keys")
    keys = Keys(str(tmp_path / "secret"), log)
    assert keys.check(f"Bearer {KEY}") == "ada"
    link.unlink()
    link.symlink_to(tmp_path / "..2")
    keys.look()
    assert keys.check(f"Bearer {KEY}") == "bob"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "there is no key"),
        (["# none"], "there is no key"),
        (["ada sk-plain"], "line 1 is no `TENANT sha256:HEX`"),
        ([key_line("ada", KEY) + " requests=1"], "line 1: there is more than a tenant and a hash"),
        ([key_line("ada", KEY), key_line("bob", KEY)], "line 2: the key is ada's already"),
    ],
)
def test_a_file_that_is_none_of_keys_says_where(
    tmp_path: Path, lines: list[str], said: str
) -> None:
    with pytest.raises(SpecError) as caught:
        read_keys(write(tmp_path / "keys", *lines))
    assert said in caught.value.cause
    assert caught.value.cure


def test_an_unreadable_path_is_a_spec_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot read the keys"):
        read_keys(tmp_path / "missing")


def test_keys_are_random_and_tenants_have_plain_names() -> None:
    assert new_key() != new_key()
    assert new_key().startswith("sk-")
    with pytest.raises(SpecError, match="tenant's name"):
        key_line("a b", KEY)
