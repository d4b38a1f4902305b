"""`ggfast-core broker`: the MQTT broker alone; every client may use every topic.

For development, and as the simplest thing to measure. Prints one line when it listens, ends in order at SIGTERM
or SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import uvloop

from ggfast import limits
from ggfast._ext.bounds import PACKET_BYTES_TOP
from ggfast._ext.routes import Router
from ggfast._ext.topics import TREE_LEVELS_MAX
from ggfast.clock import SystemClock
from ggfast.counters import Counters
from ggfast.errors import ConfigError, GgfastError
from ggfast.mqtt import state
from ggfast.mqtt.broker import Broker
from ggfast.mqtt.hooks import OpenHooks
from ggfast.mqtt.limits import BrokerLimits
from ggfast.net.tls import server_context

ANY = sys.maxsize
CONNECT_FIELDS_BYTES = 64 * limits.KIB + 16  # what a packet may hold beside the payload: a topic and a header


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=1883, help="TCP port; 0 picks a free one (default: %(default)s)")
    parser.add_argument("--tls-cert", metavar="FILE", help="server certificate chain, PEM; turns TLS on")
    parser.add_argument("--tls-key", metavar="FILE", help="its private key, PEM")
    parser.add_argument(
        "--tls-ca", metavar="FILE", help="certificates or CAs clients must prove, PEM; asks clients for one"
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="keep retained messages and persistent sessions here from an orderly stop to the next start",
    )
    packet_bytes, forever_s = limits.OPEN_PAYLOAD_BYTES_MAX + CONNECT_FIELDS_BYTES, limits.BROKER_SESSION_EXPIRY_S_MAX
    whole = (
        ("--max-packet-bytes", 1, PACKET_BYTES_TOP, packet_bytes, "largest MQTT packet"),
        ("--max-connections", 1, ANY, limits.BROKER_CONNECTIONS_MAX, "connections at a time"),
        ("--max-subscriptions", 1, ANY, limits.BROKER_SUBSCRIPTIONS_MAX, "topic filters of one client"),
        ("--max-inflight", 1, 32_768, limits.BROKER_INFLIGHT_MAX, "unacknowledged QoS 1 and 2 messages to one client"),
        ("--max-queue-bytes", 1, ANY, limits.BROKER_QUEUE_BYTES_MAX, "QoS 1 and 2 messages waiting for one client"),
        ("--max-queue-messages", 1, ANY, limits.BROKER_QUEUE_ENTRIES_MAX, "the same, as a number of messages"),
        ("--max-output-bytes", 1, ANY, limits.BROKER_OUTPUT_BYTES_MAX, "unwritten output of one client"),
        ("--max-retained-bytes", 1, ANY, limits.BROKER_RETAINED_BYTES_MAX, "all retained messages together"),
        ("--receive-max", 1, 65_535, limits.BROKER_RECEIVE_MAX, "QoS 2 messages a client may have under way"),
        ("--topic-aliases", 0, 65_535, limits.BROKER_ALIASES_MAX, "topics a client may abbreviate"),
        (
            *("--session-expiry-max", 0, forever_s, forever_s),
            "seconds an MQTT 5.0 session is kept at most; 4294967295: as long as its client asks, for ever included",
        ),
        (
            *("--keep-alive-max", 0, 65_535, limits.BROKER_KEEP_ALIVE_S_MAX),
            "longest keep-alive of an MQTT 5.0 client in seconds; 0: the client's own",
        ),
    )
    for name, least, most, default, text in whole:
        parser.add_argument(
            name, type=_whole(least, most), default=default, metavar="N", help=f"{text} (default: %(default)s)"
        )
    parser.add_argument(
        "--connect-timeout",
        type=float,
        default=limits.BROKER_CONNECT_TIMEOUT_S,
        metavar="SECONDS",
        help="from connection to CONNECT (default: %(default)s)",
    )
    parser.add_argument("--verbose", action="store_true", help="log clients that break the protocol")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; 0 after an orderly end, 1 if the broker could not start."""
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    gc.set_threshold(limits.GC_THRESHOLD)
    try:
        return uvloop.run(_serve(args))
    except GgfastError as error:
        print(f"ggfast-core broker: {error}", file=sys.stderr)
        return 1


def _whole(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        found = int(text)
        if not least <= found <= most:
            upper = "or more" if most == ANY else f"to {most}"
            raise argparse.ArgumentTypeError(f"found {text}, expected {least} {upper}")
        return found

    return number


def broker_limits(args: argparse.Namespace) -> BrokerLimits:
    """The limits that the options make."""
    return BrokerLimits(
        packet_bytes_max=args.max_packet_bytes,
        payload_bytes_max=args.max_packet_bytes,
        connect_timeout_s=args.connect_timeout,
        connections_max=args.max_connections,
        subscriptions_max=args.max_subscriptions,
        inflight_max=args.max_inflight,
        queue_bytes_max=args.max_queue_bytes,
        queue_entries_max=args.max_queue_messages,
        output_bytes_max=args.max_output_bytes,
        retained_bytes_max=args.max_retained_bytes,
        receive_max=args.receive_max,
        aliases_max=args.topic_aliases,
        session_expiry_max_s=args.session_expiry_max,
        keep_alive_max_s=args.keep_alive_max,
    )


def _tls(args: argparse.Namespace) -> ssl.SSLContext | None:
    if args.tls_cert is None:
        if args.tls_key is not None or args.tls_ca is not None:
            raise ConfigError("--tls-key and --tls-ca need --tls-cert.", hint="Give the server's certificate too.")
        return None
    if args.tls_key is None:
        raise ConfigError("--tls-cert needs --tls-key.", hint="Give the certificate's private key too.")
    trusted = None
    if args.tls_ca is not None:
        try:
            trusted = [Path(args.tls_ca).read_text()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--tls-ca {args.tls_ca} cannot be read: {error}.") from error
    return server_context(args.tls_cert, args.tls_key, client_cas_pem=trusted)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"--host {host} --port {port} is not an address to listen on: {error}.") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except (OSError, OverflowError) as error:
        sock.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error}.", hint="Is another broker running there?"
        ) from error
    return sock


async def _serve(args: argparse.Namespace) -> int:
    loop = asyncio.get_running_loop()
    context = _tls(args)
    sock = _listen(args.host, args.port)
    # Depth is bounded only by what a look-up can descend.
    router = Router(True, topic_slashes_max=TREE_LEVELS_MAX - 1)
    broker = Broker(loop, router, OpenHooks(), broker_limits(args), SystemClock(), Counters())
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        if args.data is not None:
            args.data.mkdir(parents=True, exist_ok=True)
            state.load(broker, args.data)
        await broker.serve(sock, context)
        gc.collect()
        gc.freeze()  # what was made so far stays: a collection amid messages need not look at it
        host, port = sock.getsockname()[:2]
        print(f"ggfast broker listening on {host} port {port}{' with TLS' if context else ''}", flush=True)
        await stop.wait()
    finally:
        broker.close()
        sock.close()
    if args.data is not None:
        state.save(broker, args.data)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(_closed(broker), 2.0)
    return 0


async def _closed(broker: Broker) -> None:
    """Let the transports send their last bytes."""
    while broker.connection_count:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0)


def main() -> int:
    """Run the command on its own: `python -m ggfast.cli.broker`."""
    parser = argparse.ArgumentParser(prog="ggfast-core broker", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
