"""Programs with their own loop: work over HTTP through results, time-outs, stops and a new daemon; tokens' key."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path

import pytest

from ggfast import limits
from ggfast.core.functions.invocations import InvokeStatus
from ggfast.core.functions.manager import ManagerSettings
from ggfast.core.functions.tokens import KEY_BYTES, load_key
from ggfast.core.functions.worker import WorkerState
from tests.unit.function_support import Lines, arn, new_manager, run
from tests.unit.http_support import connected, request
from tests.unit.ipc_support import BASE, KEY, a_world, serve

# --- programs with their own loop ----------------------------------------------------------------------------


def test_a_program_with_its_own_loop_serves_invocations() -> None:
    async def body() -> None:
        async with a_world() as http:
            worker = await http.loop_worker()
            answer = await http.ask(
                "PUT", f"/functions/{worker.arn}/initialized", worker.token, b'{"Success": true, "Response": ""}'
            )
            assert (answer.status, worker.state, worker.was_ready) == (200, WorkerState.AWAY, True)
            async with connected(http.port) as client:
                for number in range(3):
                    asked = request("GET", f"{BASE}/functions/{worker.arn}/work", Authorization=worker.token)
                    if number == 1:  # work first, then the request for it
                        http.world.router.send(worker.arn, (b"a/b", b"1"))
                        client.send(asked)
                    else:
                        await http.poll(client, worker)
                        http.world.router.send(worker.arn, (b"a/b", b"%d" % number))
                    work = await client.answer()
                    assert (work.status, work.body) == (200, b"%d" % number)
                    context = json.loads(base64.b64decode(work.headers["x-amz-client-context"]))
                    assert context == {"custom": {"subject": "a/b"}}
                    invocation = work.headers["x-amz-invocationid"]
                    wrong = await http.ask(
                        "POST", f"/functions/{worker.arn}/work", worker.token, b"r", X_Amz_InvocationId="x"
                    )
                    assert wrong.status == 404
                    done = await http.ask(
                        "POST", f"/functions/{worker.arn}/work", worker.token, b"r", X_Amz_InvocationId=invocation
                    )
                    assert (done.status, worker.state) == (200, WorkerState.AWAY)
            rows = await http.world.manager.status()
            assert (rows[0].invocations, rows[0].errors, rows[0].state) == (3, 0, "running")

    run(body())


def test_results_and_errors_of_such_a_program_reach_the_caller() -> None:
    async def body() -> None:
        async with a_world() as http:
            worker = await http.loop_worker(timeout_s=2)
            cases = [
                ({}, b"\x00\xff", (InvokeStatus.OK, b"\x00\xff")),
                ({"X_Amz_Function_Error": ""}, b"", (InvokeStatus.OK, b"")),
                (
                    {"X_Amz_Function_Error": "Handled"},
                    b'{"errorMessage": "no"}',
                    (InvokeStatus.HANDLED, b'{"errorMessage": "no"}'),
                ),
            ]
            for headers, result, expected in cases:
                asked = asyncio.ensure_future(http.world.manager.invoke(worker.arn, b"in", b'{"custom": {}}'))
                work = await http.ask("GET", f"/functions/{worker.arn}/work", worker.token)
                assert work.body == b"in"
                invocation = work.headers["x-amz-invocationid"]
                path = f"/functions/{worker.arn}/work"
                assert (
                    await http.ask("POST", path, worker.token, result, X_Amz_InvocationId=invocation, **headers)
                ).status == 200
                assert await asked == expected
            # a connection that dies with the work in it: at most once, and the time-out tells
            asked = asyncio.ensure_future(http.world.manager.invoke(worker.arn, b"in"))
            async with connected(http.port) as client:
                await http.poll(client, worker)
                await http.world.until(lambda: worker.state is WorkerState.BUSY, "the work is handed out")
            result_of = await asked
            assert result_of.status is InvokeStatus.UNHANDLED and b"timed out after 2 seconds" in result_of.payload
            await http.world.until(lambda: worker.state is WorkerState.GONE, "the program is ended")
            fresh = await http.world.until(lambda: http.worker(worker.arn), "the next one")
            assert fresh.token != worker.token
            assert (await http.ask("GET", f"/functions/{worker.arn}/work", worker.token)).status == 401

    run(body())


def test_requests_for_work_wait_in_line_and_leave() -> None:
    async def body() -> None:
        async with a_world() as http:
            worker = await http.loop_worker()
            path = f"/functions/{worker.arn}/work"
            async with connected(http.port) as first, connected(http.port) as second:
                await http.poll(first, worker)
                assert worker.state is WorkerState.IDLE
                second.send(request("GET", BASE + path, Authorization=worker.token))
                await http.world.until(lambda: len(worker.side._requests) == 2, "both wait")
                http.world.router.send(worker.arn, (b"t", b"1"), (b"t", b"2"))
                work = await first.answer()
                assert work.body == b"1"
                done = await http.ask(
                    "POST", path, worker.token, b"", X_Amz_InvocationId=work.headers["x-amz-invocationid"]
                )
                assert done.status == 200
                work = await second.answer()  # the one that waited meanwhile
                assert work.body == b"2"
                await http.ask("POST", path, worker.token, b"", X_Amz_InvocationId=work.headers["x-amz-invocationid"])
            async with connected(http.port) as client:
                await http.poll(client, worker)
            await http.world.until(lambda: worker.state is WorkerState.AWAY, "the request left")
            http.world.router.send(worker.arn, (b"t", b"3"))
            assert (await http.ask("GET", path, worker.token)).body == b"3"  # not lost with the client before
            clients = [
                await asyncio.open_connection("127.0.0.1", http.port) for _ in range(limits.HTTP_WORK_REQUESTS_MAX)
            ]
            for _, writer in clients:
                writer.write(request("GET", BASE + path, Authorization=worker.token))
            await http.world.until(lambda: len(worker.side._requests) == limits.HTTP_WORK_REQUESTS_MAX, "all wait")
            assert (await http.ask("GET", path, worker.token)).status == 503
            for _, writer in clients:
                writer.close()

    run(body())


def test_such_a_program_is_told_to_stop() -> None:
    async def body() -> None:
        async with a_world() as http:
            worker = await http.loop_worker()
            loop = asyncio.get_running_loop()
            async with connected(http.port) as client:
                await http.poll(client, worker)
                began = loop.time()
                stopping = asyncio.ensure_future(http.world.manager.apply([]))
                assert (await client.answer()).status == 503
                await stopping
            assert worker.state is WorkerState.GONE
            assert loop.time() - began < limits.WORKER_STOP_S  # by SIGTERM, not by its time being over
            assert "Worker stopped." in http.world.log.messages()

    run(body())


def test_a_program_that_could_not_be_initialised_is_started_again() -> None:
    async def body() -> None:
        async with a_world() as http:
            worker = await http.loop_worker()
            document = b'{"Success": false, "Response": "no such port"}'
            assert (await http.ask("PUT", f"/functions/{worker.arn}/initialized", worker.token, document)).status == 200
            await http.world.until(lambda: worker.state is WorkerState.GONE, "its end")
            row = (await http.world.manager.status())[0]
            assert row.last_error == "no such port" and row.restarts == 1

    run(body())


def test_on_demand_programs_that_stop_asking_give_their_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WORKER_LOAD_S_MIN", 0.5)

    async def body() -> None:
        async with a_world() as http:
            assert await http.world.manager.apply([http.world.plan("loop", "", timeout_s=1)]) == {}
            asked = asyncio.ensure_future(http.world.manager.invoke(arn("loop"), b"in"))
            worker = await http.world.until(
                lambda: next(iter(http.world.manager._around.workers.values()), None), "a worker"
            )
            await http.world.until(lambda: worker.state is WorkerState.LOADING, "loading")
            path = f"/functions/{worker.arn}/work"
            work = await http.ask("GET", path, worker.token)
            await http.ask("POST", path, worker.token, b"r", X_Amz_InvocationId=work.headers["x-amz-invocationid"])
            assert (await asked).payload == b"r"
            await http.world.until(lambda: worker.state is WorkerState.GONE, "its end")
            assert http.world.manager._slots._used == 0

    run(body())


def test_p4_programs_and_tokens_go_on_with_the_next_daemon() -> None:
    async def body() -> None:
        async with a_world() as http:
            worker = await http.loop_worker()
            token, path, pid = worker.token, f"/functions/{worker.arn}/work", worker.pid
            asked = asyncio.ensure_future(http.world.manager.invoke(worker.arn, b"in"))
            work = await http.ask("GET", path, token)
            # another daemon, with the key of the file; the first one is forgotten without a word
            old = http.world.manager
            http.interface.close()
            plan = http.world.plan("loop", "", pinned=True)
            http.world.router.targets.clear()
            manager, *_ = new_manager(http.world.channel, http.world.router, ManagerSettings(token_key=KEY))
            http.world.manager = manager
            assert await manager.adopt_all([plan]) == {}
            http.interface, http.port = serve(http.world)
            done = await http.ask("POST", path, token, b"late", X_Amz_InvocationId=work.headers["x-amz-invocationid"])
            assert done.status == 200  # not its fault that the caller went
            adopted = http.worker(arn("loop"))
            assert (adopted.pid, adopted.token) == (pid, token)
            http.world.router.send(worker.arn, (b"t", b"next"))
            work = await http.ask("GET", path, token)
            assert work.body == b"next"
            done = await http.ask("POST", path, token, b"", X_Amz_InvocationId=work.headers["x-amz-invocationid"])
            assert (done.status, adopted.state) == (200, WorkerState.AWAY)
            assert (await http.ask("POST", path, token, b"", X_Amz_InvocationId="x")).status == 404
            asked.cancel()
            for left in old._around.workers.values():
                left._link.close()
                for pipe in left._pipes:
                    pipe.close()
                left._timer.cancel() if left._timer else None
            if old._sweep_timer is not None:
                old._sweep_timer.cancel()

    run(body())


# --- the key of the tokens --------------------------------------------------------------------------------------


def test_the_key_is_made_once_and_kept(tmp_path: Path) -> None:
    path, log = tmp_path / "token.key", Lines()
    key = load_key(path, log)  # type: ignore[arg-type]
    assert len(key) == KEY_BYTES and path.stat().st_mode & 0o7777 == 0o600
    assert load_key(path, log) == key  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == ["token.key"] and not log.records


@pytest.mark.parametrize(
    "damage", ["short", "long", "empty", "mode", "link", "hard link", "directory", "fifo", "owner"]
)
def test_p5_a_key_others_may_know_is_replaced(tmp_path: Path, damage: str) -> None:
    path, log = tmp_path / "token.key", Lines()
    key = load_key(path, log)  # type: ignore[arg-type]
    if damage in ("short", "long", "empty"):
        path.write_bytes({"short": key[:-1], "long": key + b"x", "empty": b""}[damage])
    elif damage == "mode":
        path.chmod(0o640)
    elif damage == "owner":
        os.chown(path, 12345, -1)
    elif damage == "hard link":
        os.link(path, tmp_path / "other")
    else:
        path.rename(tmp_path / "other")
        if damage == "link":
            path.symlink_to(tmp_path / "other")
        elif damage == "directory":
            path.mkdir()
        else:
            os.mkfifo(path, 0o600)
    fresh = load_key(path, log)  # type: ignore[arg-type]
    assert fresh != key and len(fresh) == KEY_BYTES
    assert load_key(path, log) == fresh  # type: ignore[arg-type]
    assert [level for level, _, _ in log.records] == ["warn"]
    assert path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o7777 == 0o600


def test_a_disk_that_takes_no_key_is_said_and_nothing_else(tmp_path: Path) -> None:
    log = Lines()
    assert len(load_key(tmp_path / "nowhere" / "token.key", log)) == KEY_BYTES  # type: ignore[arg-type]
    assert [level for level, _, _ in log.records] == ["error"]
