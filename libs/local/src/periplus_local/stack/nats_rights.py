"""What each user of NATS may publish and read: what is listed here, and nothing else.

docs/operations.md has the same as a table, every cell of which tests/security/test_service_rights.py tries on a server.
"""

from __future__ import annotations

from dataclasses import dataclass

from periplus_common.streams import STREAMS

SUBSCRIBER = "subscriber"

CONSUMERS = {
    "dispatcher": (),
    "cache": (("DISPATCHER", "cache"),),
    "snapshotter": (),
    "lineage": (
        ("DISPATCHER", "lineage-dispatcher"),
        ("CACHE", "lineage-cache"),
        ("SNAPSHOTTER", "lineage-snapshotter"),
    ),
}
"""The durable consumers of each service: stream and name."""


@dataclass(frozen=True)
class Rights:
    """Subjects, with wildcards, that a user may publish to and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]

    def permissions(self) -> dict[str, object]:
        """The `permissions` of a user in the server's settings, where an empty list would allow everything."""
        return {
            action: {"allow": list(subjects)} if subjects else {"deny": [">"]}
            for action, subjects in (("publish", self.publish), ("subscribe", self.subscribe))
        }


def rights_of(user: str) -> Rights:
    """The rights of a service, or of the subscriber, who receives every event."""
    if user == SUBSCRIBER:
        return Rights((), ("periplus.>",))
    subjects = []
    if (stream := user.upper()) in STREAMS:
        # Its relay needs the state of the stream, and what every consumer has acknowledged.
        subjects += [f"periplus.{user}.>", f"$JS.API.STREAM.INFO.{stream}", f"$JS.API.CONSUMER.LIST.{stream}"]
    for stream, durable in CONSUMERS[user]:
        calls = ("DURABLE.CREATE", "INFO", "MSG.NEXT")
        subjects += [f"$JS.API.CONSUMER.{call}.{stream}.{durable}" for call in calls]
        subjects += [f"$JS.ACK.{stream}.{durable}.>", f"periplus-dead.{durable}"]
    return Rights(tuple(subjects), (f"_INBOX_{user}.>",))
