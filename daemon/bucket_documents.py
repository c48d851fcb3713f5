"""What a bucket's own configuration says, read from the XML that S3 answers with; pure."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.answers import Element, parse

RULES_MAX = 1000
"""S3 API, PutBucketLifecycleConfiguration: the most rules that a bucket has."""


@dataclass(frozen=True, slots=True)
class LifecycleRule:
    """A rule that does something to objects in time.

    Attributes:
        identifier: its ID, empty where it has none.
        prefix: of the keys that it is about; empty: all.
        narrowed: it is about objects with some tags or of some size only.
        action: "expires", "moves to CLASS", or "expires earlier versions".
        after: when, in words: "30 days", a date, or empty.
    """

    identifier: str
    prefix: str
    narrowed: bool
    action: str
    after: str

    def touches(self, prefix: str) -> bool:
        """Say whether it can be about an object whose key begins with `prefix`."""
        return self.prefix.startswith(prefix) or prefix.startswith(self.prefix)


def read_versioning(body: bytes) -> str:
    """Return "enabled", "suspended" or "off".

    Raises:
        GarbledAnswerError: no `<VersioningConfiguration>`.
    """
    status = parse(body, "VersioningConfiguration").value("Status")
    return {"Enabled": "enabled", "Suspended": "suspended"}.get(status or "", "off")


def read_object_lock(body: bytes) -> str:
    """Return "off", "on", or "default retention" where every new object is kept for some time.

    Raises:
        GarbledAnswerError: no `<ObjectLockConfiguration>`.
    """
    root = parse(body, "ObjectLockConfiguration")
    if root.value("ObjectLockEnabled") != "Enabled":
        return "off"
    return "default retention" if any(rule.children for rule in root.named("Rule")) else "on"


def read_lifecycle(body: bytes) -> list[LifecycleRule]:
    """Return what the enabled rules do to objects; a rule with two actions is two of them.

    Aborting uploads that were never completed touches no object, and is left out.

    Raises:
        GarbledAnswerError: no `<LifecycleConfiguration>`.
    """
    found: list[LifecycleRule] = []
    for rule in list(parse(body, "LifecycleConfiguration").named("Rule"))[:RULES_MAX]:
        if rule.value("Status") == "Enabled":
            found += _actions(rule)
    return found


def _actions(rule: Element) -> list[LifecycleRule]:
    identifier = rule.value("ID") or ""
    prefix, narrowed = _filter(rule)
    found = []
    for element in rule.children:
        action = ""
        if element.name == "Expiration" and (element.value("Days") or element.value("Date")):
            action = "expires"
        elif element.name == "Transition":
            action = f"moves to {element.value('StorageClass') or 'another class'}"
        elif element.name == "NoncurrentVersionExpiration":
            action = "expires earlier versions"
        if action:
            found.append(LifecycleRule(identifier, prefix, narrowed, action, _after(element)))
    return found


def _filter(rule: Element) -> tuple[str, bool]:
    """Return the prefix that a rule is about, and whether it is narrowed further."""
    prefix, narrowed = rule.value("Prefix") or "", False
    for given in rule.named("Filter"):
        for part in [given, *given.named("And")]:
            prefix = part.value("Prefix") or prefix
            narrowed = narrowed or any(child.name not in {"Prefix", "And"} for child in part.children)
    return prefix, narrowed


def _after(element: Element) -> str:
    for name in ("Days", "NoncurrentDays"):
        days = element.value(name)
        if days:
            return f"{days} days"
    return element.value("Date") or ""
