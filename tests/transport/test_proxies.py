from __future__ import annotations

import pytest

from daemon.proxies import refused_proxy

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("env", "endpoint", "refused"),
    [
        ({}, "https://s3.example.com", None),
        ({"HTTPS_PROXY": PROXY}, "https://s3.example.com", "HTTPS_PROXY"),
        ({"https_proxy": PROXY}, "https://s3.example.com", "https_proxy"),
        ({"HTTP_PROXY": PROXY}, "https://s3.example.com", None),
        ({"HTTP_PROXY": PROXY}, "http://127.0.0.1:8333", "HTTP_PROXY"),
        ({"http_proxy": PROXY}, "HTTP://S3.example.com", "http_proxy"),
        ({"ALL_PROXY": PROXY}, "https://s3.example.com", "ALL_PROXY"),
        ({"all_proxy": PROXY}, "http://s3.example.com", "all_proxy"),
        ({"HTTPS_PROXY": PROXY, "ALL_PROXY": PROXY}, "https://s3.example.com", "HTTPS_PROXY"),
        ({"HTTPS_PROXY": ""}, "https://s3.example.com", None),
        ({"https_proxy": "", "HTTPS_PROXY": PROXY}, "https://s3.example.com", None),
        ({"https_proxy": PROXY, "HTTPS_PROXY": PROXY}, "https://s3.example.com", "https_proxy"),
    ],
)
def test_the_variable_in_force_for_the_scheme_is_named(env, endpoint, refused) -> None:
    assert refused_proxy(env, endpoint) == refused


@pytest.mark.parametrize(
    ("no_proxy", "endpoint"),
    [
        ("*", "https://s3.example.com"),
        ("s3.example.com", "https://s3.example.com"),
        ("example.com", "https://s3.example.com"),
        (".example.com", "https://s3.example.com"),
        ("*.example.com", "https://s3.example.com"),
        ("other.org, Example.COM", "https://S3.example.com."),
        ("s3.example.com:443", "https://s3.example.com"),
        ("s3.example.com:9000", "https://s3.example.com:9000"),
        ("127.0.0.1", "https://127.0.0.1:8333"),
        ("127.0.0.0/8", "https://127.9.9.9"),
        ("::1", "https://[::1]:8333"),
        ("[::1]:8333", "https://[::1]:8333"),
        ("fd00::/8", "https://[fd00::5]"),
        ("localhost", "https://localhost:8333"),
    ],
)
def test_no_proxy_exempts(no_proxy, endpoint) -> None:
    assert refused_proxy({"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy}, endpoint) is None
    assert refused_proxy({"HTTPS_PROXY": PROXY, "no_proxy": no_proxy}, endpoint) is None


@pytest.mark.parametrize(
    ("no_proxy", "endpoint"),
    [
        ("", "https://s3.example.com"),
        (",", "https://s3.example.com"),
        (".", "https://s3.example.com"),
        ("ample.com", "https://s3.example.com"),
        ("s3.example.com:9000", "https://s3.example.com"),
        ("127.0.0.1", "https://127.0.0.2"),
        ("::2", "https://[::1]"),
        ("1", "https://127.0.0.1"),
    ],
)
def test_no_proxy_for_others_exempts_nothing(no_proxy, endpoint) -> None:
    assert refused_proxy({"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy}, endpoint) == "HTTPS_PROXY"
