from __future__ import annotations

import pytest

from daemon.addressing import locate
from daemon.errors import ConfigError

AWS = "https://s3.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("bucket", "endpoint", "addressing", "host", "object_root", "bucket_path"),
    [
        ("photos", AWS, "auto", "photos.s3.eu-west-1.amazonaws.com", "/", "/"),
        (
            "photos",
            "https://s3.cn-north-1.amazonaws.com.cn",
            "auto",
            "photos.s3.cn-north-1.amazonaws.com.cn",
            "/",
            "/",
        ),
        ("my.photos", AWS, "auto", "s3.eu-west-1.amazonaws.com", "/my.photos/", "/my.photos"),
        ("photos", AWS, "path", "s3.eu-west-1.amazonaws.com", "/photos/", "/photos"),
        ("photos", "http://127.0.0.1:8333", "auto", "127.0.0.1:8333", "/photos/", "/photos"),
        ("photos", "http://[::1]:8333", "auto", "[::1]:8333", "/photos/", "/photos"),
        ("photos", "https://s3.corp:443", "auto", "s3.corp", "/photos/", "/photos"),
        ("photos", "https://s3.corp:8443", "virtual", "photos.s3.corp:8443", "/", "/"),
        ("photos", "https://notamazonaws.com", "auto", "notamazonaws.com", "/photos/", "/photos"),
    ],
)
def test_a_bucket_is_found_at(bucket, endpoint, addressing, host, object_root, bucket_path):
    address = locate(bucket, endpoint_url=endpoint, addressing=addressing)
    assert (address.host, address.object_root, address.bucket_path) == (host, object_root, bucket_path)
    assert address.url.netloc.decode() == host


def test_a_dotted_bucket_name_can_not_be_addressed_virtually():
    with pytest.raises(ConfigError, match=r"my\.photos"):
        locate("my.photos", endpoint_url=AWS, addressing="virtual")
