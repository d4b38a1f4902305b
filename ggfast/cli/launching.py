"""From configuration to the supervisor's launch spec: listeners, policy, worker image, daemon command.

The policy is what root allows the daemon to ask the spawner for; it comes from root's files alone.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import ggfast
from ggfast import limits
from ggfast.cli.checks import Accounts
from ggfast.config import Config
from ggfast.core.functions.resources import mount_policy
from ggfast.errors import OperatingError
from ggfast.sandbox.accounts import powerful_accounts
from ggfast.sandbox.launch import DaemonLaunch, LaunchSpec

WORKER_MODULE = "ggworker"
ID_MAX = 0xFFFF_FFFE  # the largest id the kernel takes; the one above means "unchanged"


def launch_spec(config: Config, accounts: Accounts, files: Mapping[str, int]) -> LaunchSpec:
    """Open the listeners and describe the whole launch; `files` as from `handing.hand_over`. Raises OperatingError for
    a port in use."""
    layout = config.layout
    workers = Path(ggfast.__file__).parent / "core" / "workers"
    return LaunchSpec(
        name=root_name(layout.root),
        title=str(layout.daemon),
        daemon=DaemonLaunch(
            argv=(
                *(sys.executable, "-I", "-m", "ggfast.cli.daemon", "--root", str(layout.root)),
                *("--function-uid", str(accounts.function_uid), "--function-gid", str(accounts.function_gid)),
            ),
            uid=accounts.daemon_uid,
            gid=accounts.daemon_gid,
            groups=(),
            environment={"LANG": "C.UTF-8", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        ),
        listeners={
            "mqtt": listen_tcp(config.ggfast.mqtt_host, config.core_thing.gg_mqtt_port).detach(),
            **{name: sock.detach() for name, sock in listen_functions(config.core_thing.gg_daemon_port).items()},
            "control": listen_unix(layout.control_socket).detach(),
        },
        files=files,
        pid_file=str(layout.pid_file),
        state_dir=str(layout.control_socket.parent),  # root's own, unlike var/state
        crash_log=str(layout.crash_log),
        worker={
            "python_path": [str(workers / "python")],
            "module": WORKER_MODULE,
            "runtime_dir": str(workers),
            "preload": list(config.ggfast.preload_modules),
        },
        policy=policy(config, accounts),
    )


def policy(config: Config, accounts: Accounts) -> dict[str, object]:
    """What the daemon may ask for: identities, code, memory, and what functions never see."""
    layout, listed = config.layout, config.ggfast.run_as_uids
    # V1 ran functions as whom the group said. So does this without a list, but as nobody who could become root; and
    # never as the daemon: its keys would be the function's.
    denied = set(powerful_accounts() if listed is None else ()) - {accounts.function_uid} | {accounts.daemon_uid}
    return {
        "uids": [[1, ID_MAX]] if listed is None else [accounts.function_uid, *listed],
        "denied_uids": sorted(denied),
        "gids": _without(1, ID_MAX, accounts.daemon_gid),
        "allow_root": config.runtime.allow_functions_to_run_as_root,
        # During a deployment functions of the group before may need another worker: their packages lie in the second.
        "code_prefixes": [str(layout.functions), str(layout.previous_functions)],
        **mount_policy(config),
    }


def root_name(root: Path) -> str:
    """A short name for a root, the same at each start: cgroups and leftovers are found by it."""
    return hashlib.sha256(os.fsencode(root)).hexdigest()[:12]


def listen_functions(port: int) -> dict[str, socket.socket]:
    """The functions' HTTP interface at what they call localhost: 127.0.0.1, and ::1 where the name means that too.

    Raises OperatingError for a port in use.
    """
    setting = "coreThing.ggDaemonPort"
    found = {"functions": listen_tcp("127.0.0.1", port, setting)}
    try:
        addresses = {str(entry[4][0]) for entry in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)}
        if "::1" in addresses:
            found["functions6"] = listen_tcp("::1", port, setting)
    except OperatingError as error:
        if getattr(error.__cause__, "errno", 0) == errno.EADDRINUSE:  # functions would tell their tokens to a stranger
            found["functions"].close()
            raise
    except OSError:
        pass  # no name service: clients that ask for localhost get no further than we did
    return found


def listen_tcp(host: str, port: int, setting: str = "coreThing.ggMqttPort") -> socket.socket:
    """A listening socket; raises OperatingError naming the address and what is wrong with it."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        except OSError as error:
            hint = "Name an address of this machine in ggfast.mqttHost."
            raise OperatingError(f"cannot listen on {host}: {error.strerror}.", hint=hint) from error
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(sock, host, port)
        sock.listen(limits.LISTEN_BACKLOG)
    except OSError as error:
        sock.close()
        hint = f"Stop what listens there, or set {setting}." if error.errno == errno.EADDRINUSE else ""
        raise OperatingError(f"cannot listen on {host} port {port}: {error.strerror}.", hint=hint) from error
    return sock


def _bind(sock: socket.socket, host: str, port: int) -> None:
    """Take the port; a core that was killed may hold it for as long as its last thread takes to end. Raises OSError."""
    give_up = time.monotonic() + limits.PORT_PATIENCE_S
    while True:
        try:
            sock.bind((host, port))
            return
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() >= give_up:
                raise
        time.sleep(limits.PORT_PAUSE_S)


def listen_unix(path: Path) -> socket.socket:
    """The control socket, for root alone; reached through its directory so that long roots fit a socket address."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        sock.bind(f"/proc/self/fd/{directory}/{path.name}")
        sock.listen(limits.CONTROL_CONNECTIONS_MAX)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
        os.close(directory)
    return sock


def _without(first: int, last: int, hole: int) -> list[list[int]]:
    """The range without one number in it."""
    if not first <= hole <= last:
        return [[first, last]]
    return [pair for pair in ([first, hole - 1], [hole + 1, last]) if pair[0] <= pair[1]]
