"""The locked set of dependencies: all that pyproject.toml names, in its ranges, each file by its hash, from anywhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = ROOT / ".lock" / "requirements.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def locked() -> dict[str, list[tuple[Requirement, str]]]:
    """Every locked requirement by its name, with the text of its hashes."""
    found: dict[str, list[tuple[Requirement, str]]] = {}
    text = re.sub(r"(?m)^\s*#.*\n", "", LOCK.read_text()).replace("\\\n", " ")
    for line in filter(str.strip, text.splitlines()):
        pinned, _, hashes = line.partition(" --hash")
        requirement = Requirement(pinned.strip())
        found.setdefault(canonicalize_name(requirement.name), []).append((requirement, f"--hash{hashes}"))
    return found


WANTED = [
    Requirement(text)
    for text in (
        *PROJECT["dependencies"],
        *(one for extra in PROJECT["optional-dependencies"].values() for one in extra),
    )
    if not text.startswith(PROJECT["name"])
]


@pytest.mark.parametrize("wanted", WANTED, ids=lambda wanted: wanted.name)
def test_a_dependency_is_locked_to_versions_within_its_range(wanted: Requirement) -> None:
    pins = locked()[canonicalize_name(wanted.name)]
    for pin, _ in pins:
        (only,) = pin.specifier
        assert only.operator == "=="
        assert wanted.specifier.contains(only.version)


def test_every_locked_package_has_the_hashes_of_its_files() -> None:
    entries = [entry for pins in locked().values() for entry in pins]
    assert len(entries) >= len(WANTED)
    for requirement, hashes in entries:
        assert all(HASH.fullmatch(word) for word in hashes.split()), requirement.name


def test_the_lock_names_no_registry() -> None:
    text = re.sub(r"(?m)^#.*$", "", LOCK.read_text())
    assert not re.search(
        r"://|--(extra-)?index-url|--find-links|--trusted-host|^-[ief]\b| @ ", text, re.MULTILINE
    )
