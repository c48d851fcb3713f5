"""What rows, servers and configurations say never drives a terminal, a browser or a spreadsheet, wherever it is shown."""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.error_text import error_text
from daemon.errors import BackfillError, ConfigError
from daemon.log_events import LogEvent, Told
from daemon.log_lines import Style, log_line
from daemon.page_parts import escaped, foreign
from daemon.rendering import Explained, event_json, event_line, explain_text, status_text
from daemon.rendering_view import view
from daemon.rendering_watch import screen
from daemon.report_cells import RUN_BY_SPREADSHEETS, cell, plain_cell
from daemon.status_page import page
from journal.entries import AttemptFailed, Parked
from journal.log import Journal
from journal.reader import Reader
from tests.fuzzing.hostile import FUZZED
from tests.journal.journals import NOW_US, create

HOSTILE = st.text(
    st.sampled_from([*"\x1b\x07\r\n\t\x08\x7f\x85\x9b\u2028\u202e\u2066\ufeff\u200b<>&\"'`=+@-|\\ a7é日"]), min_size=1, max_size=12
)
"""ESC, C0 and C1, line ends that only some know, bidi controls, what HTML and spreadsheets run, and plain letters."""
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\u200b\ufeff]")
