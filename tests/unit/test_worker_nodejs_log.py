"""Node.js functions: what they print, as records of the log pipes."""

from __future__ import annotations

from pathlib import Path

import pytest
from nodejs_support import ready

PRINTS = """
exports.handler = (event, context, done) => {
  console.debug('a debug');
  console.log('a log %d', 5, {deep: {er: [1]}});
  console.info('line 1\\nline 2\\n\\nline 4');
  console.warn('a warning');
  console.error('an error');
  console.dir({a: 1});
  console.assert(false, 'assertion');
  console.log();
  console.group('outer'); console.log('in\\ner'); console.groupEnd();
  done();
}"""
PRINTED = [
    ("DEBUG", "a debug"),
    ("INFO", "a log 5 { deep: { er: [ 1 ] } }"),
    ("INFO", "line 1\nline 2\n\nline 4"),
    ("WARN", "a warning"),
    ("ERROR", "an error"),
    ("INFO", "{ a: 1 }"),
    ("WARN", "Assertion failed: assertion"),
    ("INFO", ""),
    ("INFO", "outer"),
    ("INFO", "  in\n  er"),
]


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARN", "ERROR", "FATAL"])
def test_one_call_is_one_record_of_its_level(tmp_path: Path, level: str) -> None:
    order = ["DEBUG", "INFO", "WARN", "ERROR", "FATAL"]
    with ready(tmp_path, PRINTS, GGFAST_LOG_LEVEL=level) as worker:
        worker.work(1)
        worker.result(1)
        worker.stop()
        assert worker.finish() == [entry for entry in PRINTED if order.index(entry[0]) >= order.index(level)]


def test_what_is_written_to_the_streams_is_lines(tmp_path: Path) -> None:
    source = """const {Console} = require('console');
    exports.handler = (event, context, done) => {
      process.stdout.write('a\\nb');
      console.log('c');
      process.stderr.write(Buffer.from('d\\n'));
      new Console(process.stdout, process.stderr).error('e');
      process.stdout.write('gr\\u00fcn\\n', 'utf8', () => process.stdout.end());
      const kind = [process.stdout.fd, process.stderr.isTTY === undefined];
      setTimeout(() => { console.log('still'); process.stdout.end('end\\n'); done(null, kind) }, 9);
    }"""
    with ready(tmp_path, source) as worker:
        worker.work(1)
        assert worker.result(1) == b"[1,true]"
        worker.stop()
        assert worker.finish() == [
            ("INFO", "a"),
            ("INFO", "b"),
            ("INFO", "c"),
            ("INFO", "grün"),
            ("INFO", "still"),
            ("INFO", "end"),
            ("ERROR", "d"),
            ("ERROR", "e"),
        ]


@pytest.mark.parametrize(
    "end", ["process.abort()", "process.kill(process.pid, 'SIGKILL')", "process.exit(3)", "null.x"]
)
def test_nothing_is_lost_at_a_crash(tmp_path: Path, end: str) -> None:
    source = f"""exports.handler = () => setImmediate(() => {{
      for (let n = 0; n < 3000; n++) console.log(n, 'x'.repeat(100));
      {end};
    }})"""
    with ready(tmp_path, source) as worker:
        worker.work(1)
        assert worker.exit_status() != 0
        worker.finish()
        assert [int(text.split()[0]) for text in worker.logged("INFO")] == list(range(3000))


def test_a_full_log_pipe_holds_the_function_up_and_loses_nothing(tmp_path: Path) -> None:
    source = """exports.handler = (event, context, done) => {
      for (let n = 0; n < 300; n++) console.log(n, 'x'.repeat(1000));
      done();
    }"""
    with ready(tmp_path, source, drain=False) as worker:
        worker.work(1)
        assert worker.silent(0.5)
        worker.drain()
        assert worker.result(1) == b"null"
        worker.stop()
        assert len(worker.finish()) == 300


def test_a_pipe_set_to_non_blocking_loses_nothing(tmp_path: Path) -> None:
    """A function's library may open the descriptor anew as a stream, which sets it to non-blocking for all."""
    source = """new (require('net').Socket)({fd: 1, readable: false}).unref();
    exports.handler = (event, context, done) => {
      for (let n = 0; n < 300; n++) console.log(n, 'x'.repeat(1000));
      done();
    }"""
    with ready(tmp_path, source, drain=False) as worker:
        worker.work(1)
        assert worker.silent(0.5)
        worker.drain()
        assert worker.result(1) == b"null"
        worker.stop()
        assert len(worker.finish()) == 300


def test_nobody_reading_the_log_is_no_failure(tmp_path: Path) -> None:
    source = "exports.handler = async () => { require('fs').closeSync(1); console.log('x'); return 'on' }"
    with ready(tmp_path, source) as worker:
        worker.work(1)
        assert worker.result(1) == b'"on"'


def test_the_sdks_logger(tmp_path: Path) -> None:
    source = """const {logging} = require('aws-greengrass-common-js');
    exports.handler = (event, context, done) => {
      const logger = new logging.LocalWatchLogger();
      for (const level of ['debug', 'info', 'warn', 'error']) logger[level](level, 'b\\nc');
      done();
    }"""
    with ready(tmp_path, source) as worker:
        worker.work(1)
        worker.result(1)
        worker.stop()
        assert worker.finish() == [("INFO", "info b\nc"), ("WARN", "warn b\nc"), ("ERROR", "error b\nc")]
