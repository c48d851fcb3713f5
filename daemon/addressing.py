"""Where a bucket is found: URL, Host header and path prefix for an endpoint; pure.

AWS takes the bucket in the host name ("virtual"), endpoints of one's own usually in the path. A bucket name
with a dot would not match the wildcard certificate of the virtual form, so by default it goes into the path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import httpx

from daemon.errors import ConfigError

Addressing = Literal["auto", "path", "virtual"]
_HOST_LABEL = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]\Z")
_AWS = (".amazonaws.com", ".amazonaws.com.cn")


@dataclass(frozen=True, slots=True)
class Address:
    """One bucket at one endpoint.

    Attributes:
        url: scheme, host and port, parsed once: parsing a URL costs more than building a small request.
        host: the Host header, with the port unless it is the scheme's default.
        object_root: what precedes an object's encoded key in the path; ends in "/".
        bucket_path: the path of requests about the bucket itself, as ListObjectsV2.
    """

    url: httpx.URL
    host: str
    object_root: str
    bucket_path: str


def locate(bucket: str, *, endpoint_url: str, addressing: Addressing) -> Address:
    """Return where `bucket` is at `endpoint_url`, `http(s)://host[:port]` and nothing more.

    Raises:
        ConfigError: the bucket's name can't be part of a host name although `addressing` asks for it.
    """
    url = httpx.URL(endpoint_url)
    fits = _HOST_LABEL.match(bucket) is not None
    if addressing == "virtual" and not fits:
        raise ConfigError(
            [f"s3.addressing = virtual: expected a bucket name that is one host label, found {bucket!r}"],
            "set s3.addressing to path",
        )
    if addressing == "virtual" or (addressing == "auto" and fits and url.host.endswith(_AWS)):
        url = url.copy_with(host=f"{bucket}.{url.host}")
        object_root = bucket_path = "/"
    else:
        bucket_path = f"/{bucket}"
        object_root = f"{bucket_path}/"
    return Address(url, url.netloc.decode("ascii"), object_root, bucket_path)
