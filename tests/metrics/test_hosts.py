from __future__ import annotations

import pytest

from daemon.hosts import is_ours


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:9187",
        "localhost.",
        "127.0.0.1",
        "127.0.0.1:9187",
        "[::1]:9187",
        "[::1]",
        "10.1.2.3:80",
        "db1.example.net:9187",
        "DB1.example.net",
    ],
)
def test_addresses_localhost_and_allowed_names_are_ours(host):
    assert is_ours(host, ["db1.example.net"])


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:9187",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "user@localhost",
        "localhost/",
        "localhost:",
        "localhost:port",
        "2130706433",
        "[evil.example]",
        "::1",
        "db1.example.net.evil.example",
        "lоcalhost",  # noqa: RUF001 -- a Cyrillic letter
    ],
)
def test_names_that_somebody_else_can_point_here_are_not(host):
    assert not is_ours(host, ["db1.example.net"])
