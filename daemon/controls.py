"""What a session may do at this moment: how many uploads, how fast, or nothing new at all.

One owner: the session. Whatever is on the record (a pause, what an operator set) is recorded first and then
changed here. Throttles only `hold` and `release`: their slow-downs are recorded by the session's accounting,
which sees every cause alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from daemon.adapting import Adaptation, Change, trouble
from daemon.causes import HOLDS, Cause
from daemon.config import ThrottleConfig
from daemon.drain import Drain
from daemon.tunables import Tunables
from journal.entries import AttemptFailed


@dataclass(frozen=True, slots=True)
class Hold:
    """Why nothing new may begin: `detail` says in one line what was found and what is expected."""

    cause: Cause
    detail: str


class Controls:
    """The state that pipeline and planner look at, and wait on.

    Attributes:
        tunables: in force now, but for `concurrency`, where that adapts.
        throttle: the configuration's, in force now; its rates are in the tunables, under what operators set.
        paused: an operator's pause: nothing new is claimed or scanned, what is claimed is ended.
        over: the session has decided how it ends: nothing new is taken up any more.
        changed: set by the next change of anything, and replaced then; take it before looking.
    """

    def __init__(
        self,
        tunables: Tunables,
        *,
        throttle: ThrottleConfig | None = None,
        paused: bool = False,
        adaptive: bool = False,
    ) -> None:
        """Begin with these; `adaptive` makes `tunables.concurrency` a ceiling."""
        self.tunables = tunables
        self._adaptation = Adaptation(tunables.concurrency) if adaptive else None
        self.throttle = ThrottleConfig() if throttle is None else throttle
        self.paused = paused
        self.over = False
        self.changed = trio.Event()
        self._holds: dict[Cause, Hold] = {}

    @property
    def concurrency(self) -> int:
        """Uploads that may be under way at once now."""
        return self.tunables.concurrency if self._adaptation is None else self._adaptation.limit

    @property
    def held(self) -> Hold | None:
        """The throttle in force: nothing new is claimed, fetched or scanned; the gravest where several are."""
        return next((self._holds[cause] for cause in HOLDS if cause in self._holds), None)

    @property
    def holds(self) -> tuple[Hold, ...]:
        """The throttles in force, in no order."""
        return tuple(self._holds.values())

    @property
    def open(self) -> bool:
        """Whether new work may begin."""
        return not self.paused and not self._holds

    def set(self, tunables: Tunables, *, throttle: ThrottleConfig | None = None) -> None:
        """Put other tunables in force, for everyone waiting too, and with a reload another `[throttle]`."""
        self.tunables = tunables
        if self._adaptation is not None:
            self._adaptation.set_ceiling(tunables.concurrency)
        if throttle is not None:
            self.throttle = throttle
        self._tell()

    def served(self, *, under_way: int, full: bool) -> None:
        """Note that an upload was served, as `Adaptation.served` has it: more may be allowed by that."""
        adaptation = self._adaptation
        if adaptation is not None and adaptation.served(
            under_way=under_way, full=full, clock=trio.current_time
        ):
            self._tell()

    def failed(self, entry: AttemptFailed) -> None:
        """Note that an attempt has failed just now: fewer may be allowed by that."""
        kind = trouble(entry)
        if self._adaptation is None or kind is None:
            return
        now = trio.current_time()
        began = now - (entry.milliseconds or 0) / 1000
        if self._adaptation.failed(kind, began=began, now=now, ordinal=entry.ordinal):
            self._tell()

    def take_change(self, *, last: bool = False) -> Change | None:
        """Return what is to be put on record of `concurrency` now, once; `last` as nobody will ask again."""
        return (
            None if self._adaptation is None else self._adaptation.take_change(trio.current_time(), last=last)
        )

    def pause(self) -> None:
        """Let nothing new begin until `resume`; harmless when repeated."""
        self.paused = True
        self._tell()

    def resume(self) -> None:
        """End the operator's pause; throttles stay in force."""
        self.paused = False
        self._tell()

    def hold(self, hold: Hold) -> None:
        """Let nothing new begin for this cause until it is released; repeated, only the detail changes."""
        if hold.cause not in HOLDS:
            raise AssertionError(f"hold for {hold.cause}, which is no throttle")
        self._holds[hold.cause] = hold
        self._tell()

    def release(self, cause: Cause) -> None:
        """Take the hold of `cause` back; harmless where there is none."""
        if self._holds.pop(cause, None) is not None:
            self._tell()

    async def wait_until_open(self, drain: Drain) -> None:
        """Return once new work may begin, or once a drain is requested."""
        while not self.open and not drain:
            await drain.or_event(self.changed)

    async def wait_until_released(self, drain: Drain) -> None:
        """Return once no throttle is in force, paused or not, or once a drain is requested."""
        while self._holds and not drain:
            await drain.or_event(self.changed)

    def _tell(self) -> None:
        changed, self.changed = self.changed, trio.Event()
        changed.set()


def unhindered(concurrency: int) -> Controls:
    """Return controls that nobody turns: `concurrency` uploads, no limit, no pause."""
    return Controls(Tunables(concurrency))
