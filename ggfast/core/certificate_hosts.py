"""Which hosts a server certificate can name, and which ones this machine has."""

from __future__ import annotations

from collections.abc import Iterable

from ggfast.errors import ConfigError, LimitReached, Problem
from ggfast.limits import CERTIFICATE_HOSTS_MAX
from ggfast.net.addresses import local_hosts as local_hosts
from ggfast.net.addresses import normal_host as normal_host


def normal_hosts(hosts: Iterable[str]) -> tuple[str, ...]:
    """`hosts` normalised, each once, in order. Raises ConfigError (all problems at once) or LimitReached."""
    found: dict[str, None] = {}
    problems = []
    for host in hosts:
        try:
            found[normal_host(host)] = None
        except ValueError as error:
            problems.append(Problem("hosts", str(error), "an IP address or a host name"))
    if problems:
        raise ConfigError("A server certificate cannot name these hosts:", problems)
    if not found:
        raise ConfigError("A server certificate needs at least one host.", hint="Give an address or a name.")
    if len(found) > CERTIFICATE_HOSTS_MAX:
        raise LimitReached("hosts in one server certificate", len(found), CERTIFICATE_HOSTS_MAX)
    return tuple(found)


def nameable(hosts: Iterable[str]) -> tuple[str, ...]:
    """Like `normal_hosts` for hosts that nobody here chose: those that no certificate can name, and those beyond the
    limit, are left out."""
    found: dict[str, None] = {}
    for host in hosts:
        try:
            found[normal_host(host)] = None
        except ValueError:
            continue
    return tuple(found)[:CERTIFICATE_HOSTS_MAX]
