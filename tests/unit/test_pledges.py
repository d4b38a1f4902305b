"""Acknowledgements that wait until a message has been kept: their order, their end, what is not kept."""

from __future__ import annotations

from ggfast._ext.framing import Ack, Publish
from ggfast._ext.pledges import Pledge
from tests.model.broker import PING, PONG, MemoryBroker


class Keeper:
    """A target that settles when the test says so."""

    def __init__(self, world: MemoryBroker) -> None:
        self.pledges: list[Pledge] = []
        self._world = world
        world.router.add_sink("keeper", self.offer)
        world.router.set_table([("", "keep/#", "keeper")])

    def offer(self, _source: str, _topic: bytes, _payload: bytes, _qos: int, _retain: bool) -> bool:
        """Take it, and keep it later."""
        self.pledges.append(self._world.router.pledge())
        return True


def keep(packet_id: int, qos: int = 1, dup: bool = False) -> Publish:
    """A message that has to be kept."""
    return Publish(b"keep/it", b"%d" % packet_id, qos, dup=dup, packet_id=packet_id)


def test_a_message_is_acknowledged_when_it_is_kept_and_those_behind_it_wait_in_order() -> None:
    world = MemoryBroker()
    keeper = Keeper(world)
    reader, writer = world.connect("r", (b"#", 0)), world.connect("w")
    plain = Publish(b"plain", b"x", 1, packet_id=8)
    assert writer.ask(keep(7), plain, keep(9, 2), PING) == [PONG]
    assert len(reader.take()) == 3, "only the acknowledgement waits"
    keeper.pledges[1].settle()
    assert writer.take() == []
    keeper.pledges[0].settle()
    assert writer.take() == [Ack("PUBACK", 7), Ack("PUBACK", 8), Ack("PUBREC", 9)]
    assert writer.ask(Publish(b"plain", b"y", 1, packet_id=10)) == [Ack("PUBACK", 10)]
    assert writer.ask(Ack("PUBREL", 9)) == [Ack("PUBCOMP", 9)]


def test_every_target_that_asked_has_to_settle() -> None:
    world = MemoryBroker()
    keeper = Keeper(world)
    world.router.add_sink("second", keeper.offer)
    world.router.set_table([("", "keep/#", "keeper"), ("", "keep/it", "second")])
    writer = world.connect("w")
    writer.send(keep(1))
    first, second = keeper.pledges
    assert first is second and first.waiting == 2
    first.settle()
    assert writer.take() == []
    first.settle()
    assert writer.take() == [Ack("PUBACK", 1)]


def test_what_was_not_kept_is_told_to_a_5_0_client_and_ends_the_connection_of_an_earlier_one() -> None:
    world = MemoryBroker()
    keeper = Keeper(world)
    modern, old = world.connect("m", level=5), world.connect("o")
    modern.send(keep(1), keep(2, 2))
    for pledge in keeper.pledges:
        pledge.settle(0x97)
    assert modern.take() == [Ack("PUBACK", 1, 0x97), Ack("PUBREC", 2, 0x97)]
    before = len(keeper.pledges)
    assert modern.ask(keep(2, 2)) == [] and len(keeper.pledges) == before + 1, "refused: it is a new message"
    old.send(keep(1), keep(2))
    keeper.pledges[-2].settle(0x80)
    assert old.take() == [] and old.closed
    keeper.pledges[-1].settle()
    assert modern.ask(PING) == [PONG]


def test_a_qos_2_message_whose_connection_ended_before_it_was_kept_is_taken_again() -> None:
    world = MemoryBroker()
    keeper = Keeper(world)
    first = world.connect("w", clean=False)
    first.send(keep(5, 2))
    first.hang_up()
    again = world.connect("w", clean=False)
    again.send(keep(5, 2, dup=True))
    keeper.pledges[0].settle(0x80)
    assert len(keeper.pledges) == 2 and again.take() == []
    keeper.pledges[1].settle()
    assert again.take() == [Ack("PUBREC", 5)]


def test_a_client_with_too_many_unkept_messages_is_not_read_until_some_are() -> None:
    world = MemoryBroker()
    keeper = Keeper(world)
    writer = world.connect("w")
    writer.send(*[keep(number) for number in range(1, 1_501)])
    assert len(keeper.pledges) == 1_024 and not writer.transport.reading
    for pledge in keeper.pledges[:600]:
        pledge.settle()
    assert len(writer.take()) == 600
    assert len(keeper.pledges) == 1_500 and writer.transport.reading
    for pledge in keeper.pledges[600:]:
        pledge.settle()
    assert [packet.packet_id for packet in writer.take() if isinstance(packet, Ack)] == list(range(601, 1_501))


def test_what_nobody_waits_for_may_be_settled() -> None:
    world = MemoryBroker()
    keeper = Keeper(world)
    writer = world.connect("w")
    writer.send(Publish(b"keep/it", b"x"))
    world.router.publish("", b"keep/it", b"y", 1)
    assert writer.ask(Publish(b"plain", b"z", 1, packet_id=3)) == [Ack("PUBACK", 3)]
    writer.send(keep(4))
    writer.hang_up()
    for pledge in keeper.pledges:
        pledge.settle()
    assert world.connect("w").ask(PING) == [PONG]
