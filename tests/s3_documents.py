"""The XML that S3 answers with."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterable

_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'


def error_document(code: str | None, message: str, **fields: str) -> bytes:
    """An error; `fields` are further elements, as Region."""
    further = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())
    words = f"<Code>{escape(code or '')}</Code><Message>{escape(message)}</Message>"
    return f"{_DECLARATION}<Error>{words}{further}</Error>".encode()


def page_document(entries: Iterable[tuple[str, int, str]], next_token: str | None) -> bytes:
    """A page of (key, size, etag), keys url-encoded; a space becomes a plus, as S3 has it."""
    contents = "".join(
        f"<Contents><Key>{quote(key, safe='/').replace('%20', '+')}</Key><Size>{size}</Size>"
        f"<ETag>&quot;{etag}&quot;</ETag></Contents>"
        for key, size, etag in entries
    )
    token = f"<NextContinuationToken>{escape(next_token)}</NextContinuationToken>" if next_token else ""
    return (
        f'{_DECLARATION}<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<EncodingType>url</EncodingType><IsTruncated>{str(bool(token)).lower()}</IsTruncated>"
        f"{token}{contents}</ListBucketResult>"
    ).encode()
