"""What commands print about a journal, in one place to import from; pure, quick to import.

The parts: `rendering_units` (numbers, times, foreign text), `rendering_view` and `rendering_pace` (what there is to
show), `rendering_status`, `rendering_course` and `rendering_advice` (status), `rendering_watch`,
`rendering_status_json`, `rendering_events`, `rendering_history` (explain), `rendering_verification`; a running
session: `rendering_progress`, `rendering_bars`, `rendering_rates`.
"""

from __future__ import annotations

from daemon.rendering_events import event_json, event_line
from daemon.rendering_history import Explained, explain_json, explain_text
from daemon.rendering_live import live_text
from daemon.rendering_status import status_text
from daemon.rendering_status_json import status_json

__all__ = [
    "Explained",
    "event_json",
    "event_line",
    "explain_json",
    "explain_text",
    "live_text",
    "status_json",
    "status_text",
]
