from __future__ import annotations

import os
import pwd
import socket

import pytest

from daemon.operators import operator, user_name

NAMING = ("LOGNAME", "USER", "LNAME", "USERNAME")
"""Environment variables that name the user where the system does not."""


@pytest.fixture
def nameless(monkeypatch):
    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for variable in NAMING:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_a_container_under_a_number_without_a_name_is_on_record_by_its_number(nameless):
    assert user_name() == f"uid {os.getuid()}"
    assert operator() == f"uid {os.getuid()}@{socket.gethostname()}"


def test_a_named_user_is_on_record_by_name(monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    assert operator() == f"ada@{socket.gethostname()}"
