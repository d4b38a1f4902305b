"""`ggfast-cloud serve`: runs a control plane until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

from ggfast.cloud.server import CloudServer, with_options
from ggfast.cloud.settings import CloudFolder, CloudSettings, load_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ggfast-cloud serve`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder made by `ggfast-cloud init`")
    parser.add_argument("--host", metavar="ADDRESS", help="address to listen on (default: `listen` of cloud.json)")
    for name, meaning in (("api", "the API"), ("mqtt", "MQTT of cores and devices"), ("https", "HTTPS of the same")):
        text = f"port of {meaning}; 0: any that is free (default: `{name}Port` of cloud.json)"
        parser.add_argument(f"--{name}-port", type=_port, metavar="N", help=text)
    parser.add_argument("--json", action="store_true", help="print one line of JSON once it serves")


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop. Raises ConfigError, OperatingError, StorageFailed."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    folder = CloudFolder(args.folder.absolute())
    settings = with_options(load_settings(folder), args.host, args.api_port, args.mqtt_port, args.https_port)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(folder, settings, as_json=args.json))
    return 0


async def _serve(folder: CloudFolder, settings: CloudSettings, *, as_json: bool) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    server = CloudServer(folder, settings)
    await server.start()
    try:
        _announce(server, as_json)
        await stopping.wait()
    finally:
        await server.stop()


def _announce(server: CloudServer, as_json: bool) -> None:
    names, ports = server.surroundings.endpoints, server.ports
    if as_json:
        found = {
            "endpoint": names.api_url,
            "iotEndpoint": names.mqtt.rpartition(":")[0],
            "apiPort": ports.api,
            "mqttPort": ports.mqtt,
            "httpsPort": ports.https,
        }
        print(json.dumps(found), flush=True)
        return
    print(f"The control plane serves: API {names.api_url}, MQTT {names.mqtt}, HTTPS {names.https}.", flush=True)


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a port, 0 to 65535")
    return int(text)
