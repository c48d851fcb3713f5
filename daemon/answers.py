"""Read the XML that S3 answers with; pure, and suspicious of every byte.

Between us and S3 may stand proxies that answer with pages of their own, so a body is bounded before it gets
here, a document type is refused (no entity can expand), and whatever is not what S3 documents is
`GarbledAnswerError` rather than a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus
from xml.parsers import expat

from daemon.objects import ListedObject

if TYPE_CHECKING:
    from collections.abc import Iterator

ERROR_BODY_BYTES_MAX = 64 * 1024
"""S3's error documents are under 2 KiB; the rest is room for proxies' pages."""
PAGE_BODY_BYTES_MAX = 16 * 1024 * 1024
"""1000 entries of a 1024-byte key, each byte percent-encoded, with 1 KiB of other fields, four times over."""
ELEMENTS_MAX = 200_000
"""A page of 1000 entries has some 15,000; as many as fit into its bytes would take 660 MB and block for 4 s."""
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9.]{0,63}\Z")
_SIZE = re.compile(r"[0-9]{1,18}")
"""Further digits are no size of an object, nor a 64-bit number of the journal's."""
_REGION = re.compile(r"[a-z0-9-]{1,32}\Z")
_REQUEST_ID = re.compile(r"[!-~]{1,128}")


class GarbledAnswerError(ValueError):
    """A body that is not what S3 documents for the operation."""


@dataclass(frozen=True, slots=True)
class ErrorDocument:
    """S3's `<Error>`; every field None where absent or not of the documented form.

    Attributes:
        code: for programs, as in "SlowDown".
        message: for people; the server's words, of any length.
        region: the region the bucket is in, where S3 names it.
        endpoint: the host S3 wants the bucket addressed by, on a redirect.
        request_id: what AWS support asks for.
    """

    code: str | None = None
    message: str | None = None
    region: str | None = None
    endpoint: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class ListedPage:
    """One answer to ListObjectsV2; `next_token` is None on the last page."""

    objects: list[ListedObject]
    next_token: str | None


@dataclass(slots=True)
class Element:
    """One element of a document: its name without namespace, its own text, its children in order."""

    name: str
    text: str
    children: list[Element]

    def value(self, name: str) -> str | None:
        """Return the text of the first child of this name; None if there is none."""
        return next((child.text for child in self.children if child.name == name), None)

    def named(self, name: str) -> Iterator[Element]:
        """Return the children of this name."""
        return (child for child in self.children if child.name == name)


class _TreeBuilder:
    """Collects elements without their namespaces; depth and number are bounded, since S3's documents are small."""

    DEPTH_MAX = 16

    def __init__(self) -> None:
        self._open: list[Element] = [Element("", "", [])]
        self._texts: list[list[str]] = [[]]
        self._left = ELEMENTS_MAX

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        self._left -= 1
        if len(self._open) > self.DEPTH_MAX or self._left < 0:
            problem = "of more elements" if self._left < 0 else "nested deeper"
            raise GarbledAnswerError(f"XML {problem} than S3 documents it")
        element = Element(name.rpartition(":")[2], "", [])
        self._open[-1].children.append(element)
        self._open.append(element)
        self._texts.append([])

    def end(self, _name: str) -> None:
        self._open.pop().text = "".join(self._texts.pop())

    def text(self, text: str) -> None:
        self._texts[-1].append(text)

    def doctype(self, *_declaration: object) -> None:
        raise GarbledAnswerError("XML with a document type, which S3 never sends")

    @property
    def root(self) -> Element:
        return self._open[0].children[0]


def parse(body: bytes, root_name: str) -> Element:
    """Return the root of a document that S3 answers with.

    Raises:
        GarbledAnswerError: `body` is no XML, has a document type, is too deep or too large, or has another root.
    """
    builder = _TreeBuilder()
    parser = expat.ParserCreate("utf-8")  # S3's encoding, whatever the document claims
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.StartDoctypeDeclHandler = builder.doctype
    try:
        parser.Parse(body, True)
    except expat.ExpatError as exc:
        raise GarbledAnswerError(f"expected the XML of <{root_name}>, found {_glimpse(body)}") from exc
    if builder.root.name != root_name:
        raise GarbledAnswerError(f"expected <{root_name}>, found <{builder.root.name[:40]}>")
    return builder.root


def _glimpse(body: bytes) -> str:
    return f"{len(body)} bytes beginning {body[:40]!r}" if body else "nothing"


def read_error(body: bytes) -> ErrorDocument:
    """Return what S3's error document says.

    Raises:
        GarbledAnswerError: `body` is empty (as after HEAD) or no `<Error>` document.
    """
    root = parse(body, "Error")
    code, region = root.value("Code"), root.value("Region")
    return ErrorDocument(
        code=code if code and _CODE.match(code) else None,
        message=root.value("Message") or None,
        region=region if region and _REGION.match(region) else None,
        endpoint=root.value("Endpoint") or None,
        request_id=request_id(root.value("RequestId")),
    )


def request_id(text: str | None) -> str | None:
    """Return what names a request for support; None where it has no form that could: a server may say anything."""
    return text if text and _REQUEST_ID.fullmatch(text) else None


def read_page(body: bytes, *, token: str | None) -> ListedPage:
    r"""Return one page of ListObjectsV2 asked for with `encoding-type=url` and continuation `token`.

    Keys are decoded only if the answer says that they are encoded (a space arrives as `+`). Bytes that are no
    UTF-8 become `\xNN`, which can't equal a key of ours: the plan refuses backslashes.

    Raises:
        GarbledAnswerError: no `<ListBucketResult>`, an entry without key or size, or a page that claims more to
            come without a token that leads there.
    """
    root = parse(body, "ListBucketResult")
    encoded = root.value("EncodingType") == "url"
    objects = [_listed(entry, encoded=encoded) for entry in root.named("Contents")]
    truncated = (root.value("IsTruncated") or "").strip().lower()
    if truncated not in {"true", "false"}:
        raise GarbledAnswerError(f"expected IsTruncated to be true or false, found {truncated[:40]!r}")
    if truncated == "false":
        return ListedPage(objects, None)
    next_token = root.value("NextContinuationToken")
    if not next_token or next_token == token:
        raise GarbledAnswerError("a page that is not the last one names no further continuation token")
    return ListedPage(objects, next_token)


def _listed(entry: Element, *, encoded: bool) -> ListedObject:
    key, size, etag = entry.value("Key"), entry.value("Size"), entry.value("ETag")
    if not key or size is None or not _SIZE.fullmatch(size.strip()):
        raise GarbledAnswerError(
            f"expected a key and a size in each entry, found {(key or '')[:80]!r} and {(size or '')[:40]!r}"
        )
    if encoded:
        key = unquote_plus(key, errors="backslashreplace")
    return ListedObject(key=key, size=int(size), etag=unquoted(etag or ""))


def unquoted(etag: str) -> str:
    """Return an entity tag without its quotes (S3 quotes them in headers and in XML alike)."""
    etag = etag.strip()
    return etag[1:-1] if len(etag) >= 2 and etag[0] == etag[-1] == '"' else etag
