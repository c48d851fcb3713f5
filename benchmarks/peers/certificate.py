"""Make an authority and a certificate for 127.0.0.1 in the directory given: authority.pem, sink.pem, sink.key."""

from __future__ import annotations

import sys
from pathlib import Path

import trustme

directory = Path(sys.argv[1])
authority = trustme.CA()
certificate = authority.issue_cert("127.0.0.1")
authority.cert_pem.write_to_path(directory / "authority.pem")
certificate.private_key_pem.write_to_path(directory / "sink.key")
for number, blob in enumerate(certificate.cert_chain_pems):
    blob.write_to_path(directory / "sink.pem", append=number > 0)
