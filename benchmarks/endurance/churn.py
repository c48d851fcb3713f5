"""A table that lives on while it is copied: rows change, go, come back-dated, and come after the cutoff."""

from __future__ import annotations

import random

# Old values are kept by the server itself, in the transaction that overwrites them.
SETUP = """
create table public.history (id text not null, size int not null, md5 text not null);
create function public.remember() returns trigger language plpgsql as $$
begin
  insert into public.history values (old.id, octet_length(old.value), md5(old.value));
  return case when tg_op = 'DELETE' then old else new end;
end $$;
create trigger remember before update or delete on public.rows for each row execute function public.remember();
"""
ROWS = 8
"""Changed, and deleted, in each step."""


class Churn:
    """Statements that change some rows of the `rows` there were at first; the same for the same seed.

    A change always alters the length: one of equal length after the row was copied is for `verify --tier source`.
    """

    def __init__(self, rows: int, seed: int) -> None:
        self._rows = rows
        self._random = random.Random(seed)
        self._step = 0

    def statements(self) -> str:
        """Return the next step, one transaction."""
        self._step += 1
        mark = f"{self._step:06}"
        return f"""
begin;
update public.rows set value = value || '\\x2b'::bytea where id in ({self._some()});
delete from public.rows where id in ({self._some()});
insert into public.rows values
  ('late-{mark}', now() - interval '2 days', convert_to('late {mark}', 'UTF8')),
  ('young-{mark}', clock_timestamp(), convert_to('young {mark}', 'UTF8'));
update public.rows set value = value || '\\x2b'::bytea where id in ('late-{self._earlier()}', 'young-{self._earlier()}');
delete from public.rows where id in ('late-{self._earlier()}', 'young-{self._earlier()}');
commit;
"""

    def _some(self) -> str:
        numbers = (self._random.randint(1, self._rows) for _ in range(ROWS))
        return ", ".join(f"substr(md5('rows/{number}'), 1, 24)" for number in numbers)

    def _earlier(self) -> str:
        return f"{self._random.randint(1, self._step):06}"
