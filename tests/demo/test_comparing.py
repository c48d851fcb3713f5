from __future__ import annotations

import dataclasses
from urllib.parse import quote

import pytest

from daemon.demo.comparing import compare
from daemon.demo.seaweed import EmbeddedSeaweed, Identity
from daemon.demo.tables import Expected

pytestmark = pytest.mark.xdist_group("demo")


def test_objects_are_compared_by_every_byte_and_each_difference_is_named():
    reader = Identity("reader", "a secret of some length")
    right, cut, turned, missing = (
        Expected("demo", f"a+b/ü~ {name}", bytes(range(200)))
        for name in ("right", "cut", "turned", "missing")
    )
    empty = Expected("demo", "empty", b"")
    extra = Expected("demo", "a&b", b"x")
    stored = [
        *(right, empty, extra),
        dataclasses.replace(cut, value=cut.value[:-1]),
        dataclasses.replace(turned, value=turned.value[:150] + b"\0" + turned.value[151:]),
    ]
    with EmbeddedSeaweed([reader], buckets=["demo"]) as server:
        for one in stored:
            assert server.request("PUT", f"/demo/{quote(one.key, safe='/~')}", one.value)[0] == 200
        found = compare(server.port, reader, [[right, cut, turned, missing, empty]])
    assert (found.objects, found.bytes) == (5, 800)
    assert sorted(found.differences) == [
        "demo/a&b: no row accounts for this object",
        "demo/a+b/ü~ cut: the row has 200 bytes, the object 199, and they differ from byte 199 on",
        "demo/a+b/ü~ missing: expected an object, found HTTP status 404",
        "demo/a+b/ü~ turned: the row has 200 bytes, the object 200, and they differ from byte 150 on",
    ]
