"""The control plane with a large registry: how long lists, reads and writes take, and what it costs in memory.

A fleet is made through the API as tools do it (a thing, a core definition and a group for each core, deployments for
some of them), then single requests of each kind are timed one after the other from one client.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.machine import machine

CLIENTS = 6  # threads that fill the registry
READY_S = 30.0
STOP_S = 30.0
PERCENT_95 = 0.95


@contextmanager
def running_cloud(folder: Path) -> Iterator[tuple[int, Callable[[str], Any]]]:
    """A cloud as a process of its own: its pid, and what makes a client for a service."""
    import boto3
    from botocore.config import Config

    program = [sys.executable, "-m", "ggfast.cli.cloud"]
    made = subprocess.run([*program, "init", str(folder), "--json"], check=True, capture_output=True, timeout=120)
    keys = json.loads(made.stdout)
    ports = ["--api-port", "0", "--mqtt-port", "0", "--https-port", "0"]
    process = subprocess.Popen([*program, "serve", str(folder), *ports, "--json"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        settings = {
            "region_name": keys["region"],
            "endpoint_url": ready["endpoint"],
            "aws_access_key_id": keys["accessKeyId"],
            "aws_secret_access_key": keys["secretAccessKey"],
            "verify": keys["caPath"],
        }
        config = Config(retries={"max_attempts": 8, "mode": "standard"}, max_pool_connections=CLIENTS)
        yield process.pid, lambda service: boto3.session.Session().client(service, config=config, **settings)
    finally:
        process.terminate()
        process.wait(STOP_S)
        assert process.stdout is not None
        process.stdout.close()


def make_core(number: int, iot: Any, greengrass: Any, certificate: str) -> tuple[str, str]:
    """One core with its group; (group id, group version)."""
    name = f"core-{number:05d}"
    thing = iot.create_thing(thingName=name)
    core = {"Id": name, "ThingArn": thing["thingArn"], "CertificateArn": certificate, "SyncShadow": False}
    cores = greengrass.create_core_definition(Name=name, InitialVersion={"Cores": [core]})
    version = {"CoreDefinitionVersionArn": cores["LatestVersionArn"]}
    group = greengrass.create_group(Name=name, InitialVersion=version)
    return group["Id"], group["LatestVersion"]


def fill(client: Callable[[str], Any], cores: int, deployments: int) -> tuple[list[tuple[str, str]], float, float]:
    """Make the fleet; its groups, and the seconds its making and its deployments took."""
    iot, greengrass = client("iot"), client("greengrass")
    certificate = iot.create_keys_and_certificate(setAsActive=True)["certificateArn"]
    with ThreadPoolExecutor(CLIENTS) as pool:
        started = time.perf_counter()
        groups = list(pool.map(lambda number: make_core(number, iot, greengrass, certificate), range(cores)))
        made = time.perf_counter()

        def deploy(group: tuple[str, str]) -> None:
            greengrass.create_deployment(GroupId=group[0], GroupVersionId=group[1], DeploymentType="NewDeployment")

        list(pool.map(deploy, groups[:deployments]))
        return groups, made - started, time.perf_counter() - made


def timed(work: Callable[[], Any], repeat: int) -> dict[str, float]:
    """Milliseconds of one request after the other."""
    taken = []
    for _ in range(repeat):
        started = time.perf_counter()
        work()
        taken.append((time.perf_counter() - started) * 1e3)
    taken.sort()
    return {"p50_ms": statistics.median(taken), "p95_ms": taken[int(len(taken) * PERCENT_95)], "max_ms": taken[-1]}


def pages(list_page: Callable[..., Any], token: str, most: int) -> tuple[int, float]:
    """Walk through a list; its pages and the longest page's milliseconds."""
    longest, count, given = 0.0, 0, {}
    while count < most:
        started = time.perf_counter()
        page = list_page(**given)
        longest = max(longest, (time.perf_counter() - started) * 1e3)
        count += 1
        if token not in page:
            break
        given = {"NextToken" if token == "NextToken" else "nextToken": page[token]}
    return count, longest


def memory_mb(pid: int) -> dict[str, float]:
    """Resident and proportional memory of the cloud's process in MB, and its highest resident."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = {
        line.partition(":")[0]: line.split()[1] for line in text.splitlines() if line.startswith(("VmRSS", "VmHWM"))
    }
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    pss = next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:"))
    return {"rss": int(found["VmRSS"]) / 1024, "rss_max": int(found["VmHWM"]) / 1024, "pss": int(pss) / 1024}


def measure(cores: int, deployments: int, repeat: int) -> dict[str, Any]:
    """Everything, as one object."""
    with (
        tempfile.TemporaryDirectory(prefix="ggfast-bench-cloud-") as place,
        running_cloud(Path(place) / "data") as (
            pid,
            client,
        ),
    ):
        empty = memory_mb(pid)
        groups, making_s, deploying_s = fill(client, cores, deployments)
        greengrass, iot = client("greengrass"), client("iot")
        first, last = groups[0][0], groups[-1][0]
        requests: dict[str, Callable[[], Any]] = {
            "ListGroups": lambda: greengrass.list_groups(MaxResults="100"),
            "ListCoreDefinitions": lambda: greengrass.list_core_definitions(MaxResults="100"),
            "ListDeployments": lambda: greengrass.list_deployments(GroupId=first),
            "ListThings": lambda: iot.list_things(maxResults=100),
            "GetGroup": lambda: greengrass.get_group(GroupId=last),
            "UpdateGroup": lambda: greengrass.update_group(GroupId=last, Name="renamed"),
            "DescribeThing": lambda: iot.describe_thing(thingName=f"core-{cores - 1:05d}"),
        }
        figures = {name: timed(work, repeat) for name, work in requests.items()}
        count, longest = pages(lambda **given: greengrass.list_groups(MaxResults="250", **given), "NextToken", cores)
        return {
            "machine": machine(),
            "cores": cores,
            "deployments": deployments,
            "made_per_s": 3 * cores / making_s,
            "deployed_per_s": deployments / deploying_s if deployments else 0.0,
            "requests": figures,
            "all_groups": {"pages": count, "longest_page_ms": longest},
            "memory_mb": {"empty": empty, "full": memory_mb(pid)},
        }


def show(found: dict[str, Any]) -> None:
    """Print it for people."""
    print(f"{found['cores']} cores, {found['deployments']} deployments")
    print(f"made by {found['made_per_s']:.0f} writes a second, deployed by {found['deployed_per_s']:.0f} a second")
    for name, figure in found["requests"].items():
        p50, p95, longest = figure["p50_ms"], figure["p95_ms"], figure["max_ms"]
        print(f"  {name:<20} p50 {p50:7.1f} ms   p95 {p95:7.1f} ms   max {longest:7.1f} ms")
    whole = found["all_groups"]
    print(f"  all groups in {whole['pages']} pages, the longest {whole['longest_page_ms']:.1f} ms")
    for state, memory in found["memory_mb"].items():
        rss, most, pss = memory["rss"], memory["rss_max"], memory["pss"]
        print(f"  memory {state:<6} {rss:6.1f} MB resident (most {most:.1f}), {pss:.1f} MB PSS")


def main(arguments: list[str]) -> int:
    """Run the benchmark; exit status 0."""
    parser = argparse.ArgumentParser(prog="python -m bench cloud", description=__doc__)
    parser.add_argument("--cores", type=int, default=10_000, metavar="N")
    parser.add_argument("--deployments", type=int, default=1_000, metavar="N")
    parser.add_argument("--repeat", type=int, default=50, metavar="N", help="requests of each kind")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    found = measure(options.cores, min(options.deployments, options.cores), options.repeat)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)
    return 0
