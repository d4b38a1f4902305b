"""Runs one Python function: `main()` is called in a process that was forked from a warm image.

fd 3 is the daemon's socket, fds 1 and 2 are log pipes, /lambda is the function's code. Everything that
depends on the function arrives in the first frame, so that the image knows no secret. No threads of our
own, nothing imported here that an idle worker would pay for twice.
"""

import ggimage  # isort: skip  (first: it watches what the others register for forks)

import _signal
import atexit
import json
import os
import site
import sys
import time
import traceback
from importlib.machinery import PathFinder

import ggchannel
import ggexec
import ggload
import ggoutput
import greengrass_common.common_log_appender
import greengrass_common.encoding_type
import greengrass_common.greengrass_message  # noqa: F401  (here, and all others, to win over copies in packages)
import greengrass_ipc_python_sdk.ipc_facade
import greengrass_ipc_python_sdk.utils.exponential_backoff  # noqa: F401
from greengrass_common import env_vars, function_arn_fields  # noqa: F401
from greengrass_common.parse_version import parse_version
from greengrass_ipc_python_sdk import ipc_client

STACK_FRAMES_MAX = 50
ERROR_TEXT_MAX = 8192
EXIT_INITIALISATION = 1
CONFIG_VARIABLE = "GGFAST_CONFIG"

ggimage.use_fork_hooks()
_channel = None  # the worker's, made in the image
_image_main = None  # keeps the image's own `__main__` alive when its name is taken away


class ClientContext(object):
    """The caller's client context: `custom` is always a dictionary unless the caller sent something else."""

    def __init__(self, document):
        custom = document.get("custom")
        self.custom = {} if custom is None else custom
        self.client = document.get("client")
        self.env = document.get("env")


class Context(object):
    """What a handler gets as its second argument (greengrass-core 6.3)."""

    def __init__(self, config, document, deadline):
        self.invoked_function_arn = config["arn"]
        self.function_name = config["name"]
        self.function_version = config["version"]
        self.memory_limit_in_mb = str(config["memory_kb"] // 1024)
        self.log_group_name = config["log_group"]
        self.log_stream_name = config["log_stream"]
        self.identity = None
        self.client_context = ClientContext(document)
        self._deadline = deadline
        self._request_id = None

    @property
    def aws_request_id(self):
        if self._request_id is None:
            digits = os.urandom(16).hex()
            parts = (digits[:8], digits[8:12], "4" + digits[13:16], "8" + digits[17:20], digits[20:])
            self._request_id = "-".join(parts)
        return self._request_id

    def get_remaining_time_in_millis(self):
        return max(0, int((self._deadline - time.monotonic()) * 1000))

    def log(self, message):
        sys.stdout.write("%s\n" % (message,))


class Runtime(object):
    """The loop around one handler."""

    def __init__(self, channel, config, output):
        self._channel = channel
        self._config = config
        self._output = output
        self._handler = None
        self._binary = config["encoding"] == "binary"
        self._timeout_s = config["timeout_s"]

    def load(self):
        """Import the handler's module; returns an error text, empty when the function can start."""
        name = self._config["handler"]
        module_name, _, function_name = name.replace("/", ".").rpartition(".")
        try:
            if not module_name:
                raise ValueError("the handler must be named <module>.<function>")
            if ggload.load(self._config["code_dir"], module_name) is None:
                __import__(module_name)
            self._handler = getattr(sys.modules[module_name], function_name)
            _check_interface()
        except (Exception, SystemExit) as error:
            text = 'Failed to import handler function "%s" due to exception: %s' % (name, _message(error))
            self.log(50, text)
            self.log(40, "".join(traceback.format_exc(-STACK_FRAMES_MAX)).rstrip("\n"))
            return text
        return ""

    def run(self):
        """Work until the daemon says stop."""
        channel = self._channel
        while True:
            work = channel.next_work()
            if work is None:
                return
            try:
                channel.result(work, self._invoke(work))
            except Exception as error:
                channel.error(work, self._failure(error))

    def log(self, level, text):
        """A record of our own, in V1's form `lambda_runtime.py:<line>,<text>`."""
        line = sys._getframe(1).f_lineno
        ggoutput.write_record(self._output, level, "lambda_runtime.py:%d,%s" % (line, text))

    def _invoke(self, work):
        deadline = time.monotonic() + self._timeout_s
        document = json.loads(work.context) if work.context else {}
        context = Context(self._config, document if isinstance(document, dict) else {}, deadline)
        if self._binary:
            value = self._handler(work.payload, context)
            return b"" if value is None else bytes(memoryview(value))
        event = json.loads(work.payload) if work.payload else {}
        return json.dumps(self._handler(event, context)).encode("utf-8")

    def _failure(self, error):
        text = _message(error)
        self.log(
            40,
            'Failed to run handler function "%s" due to exception: %s\n%s'
            % (self._config["handler"], text, traceback.format_exc(-STACK_FRAMES_MAX).rstrip("\n")),
        )
        frames = traceback.extract_tb(error.__traceback__)[-STACK_FRAMES_MAX:]
        document = {
            "errorMessage": text,
            "errorType": type(error).__name__,
            "stackTrace": [[f.filename, f.lineno, f.name, f.line] for f in frames if f.filename != __file__],
        }
        return json.dumps(document).encode("utf-8")


def prepare():
    """Make this process an image: to be called once, before any worker is forked from it."""
    global _channel, _image_main
    _image_main = ggimage.forget()
    _channel = ggchannel.in_image()
    ggoutput.install("INFO")
    working_directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(ggimage.REHEARSALS):
        _rehearse()
        os.fchdir(working_directory)
    os.close(working_directory)


def _rehearse():
    """A worker's whole life, in this process, with a daemon's frames prepared in its socket."""
    before, arguments = list(sys.path), sys.argv
    daemon, worker = ggchannel.rehearsal_socket(_REHEARSAL)
    try:
        runtime, problem = _begin(ggchannel.Channel(worker).open())
        if problem:
            raise RuntimeError(problem)
        runtime.run()
    finally:
        daemon.close()
        for name in list(os.environ):
            del os.environ[name]
        env_vars.load(os.environ)
        ipc_client.use_channel(None)
        sys.modules.pop("ggrehearsal", None)
        sys.path_importer_cache.pop(_REHEARSAL["code_dir"], None)
        sys.path[:], sys.argv = before, arguments


def main():
    """Never returns: the process ends with the function."""
    global _image_main
    status = 0
    try:
        _reset_signals()
        if _channel is None:  # forked from a process that was not prepared
            _image_main = ggimage.forget()
        ggimage.become_worker()
        runtime, problem = _begin((_channel or ggchannel.Channel()).open())
        if problem:
            status = EXIT_INITIALISATION
        else:
            runtime.run()
        atexit._run_exitfuncs()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        ggoutput.flush()
        os._exit(status & 0xFF)


def _begin(channel):
    """Take the configuration, become the function, say so to the daemon: (runtime, error text or empty)."""
    config = _configuration(channel)
    if config is None:
        return None, "it could not become the program of its function"
    output = _enter(config, channel)
    runtime = Runtime(channel, config, output)
    problem = runtime.load()
    channel.initialised(not problem, problem)
    return runtime, problem


def _configuration(channel):
    """What to run here; None when another program should have taken over this process and did not."""
    if CONFIG_VARIABLE in os.environ:  # an interpreter of its own, started by ggexec.py
        config = json.loads(os.environ.pop(CONFIG_VARIABLE))
        config["environment"] = dict(os.environ)
        return config
    document, launch = channel.configuration()
    if launch is None:
        return json.loads(document)
    channel.initialised(False, ggexec.become(launch))
    return None


def _reset_signals():
    """The image's own handlers, if it has any, are not a function's."""
    for number in (_signal.SIGTERM, _signal.SIGHUP, _signal.SIGCHLD, _signal.SIGUSR1, _signal.SIGUSR2):
        if _signal.getsignal(number) != _signal.SIG_DFL:
            _signal.signal(number, _signal.SIG_DFL)
    if _signal.getsignal(_signal.SIGINT) is not _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _enter(config, channel):
    """Become the function: environment, search path, working directory, output; returns the output stream."""
    for name in list(os.environ):
        del os.environ[name]
    for name, value in config["environment"].items():
        os.environ[name] = value
    if "TZ" in os.environ:
        time.tzset()
    env_vars.load(os.environ)
    output = ggoutput.install(config["log_level"])
    ipc_client.use_channel(channel)
    code = config["code_dir"]
    python_path = [entry for entry in os.environ.get("PYTHONPATH", "").split(":") if entry]
    sys.path[:] = _unique([code] + python_path + sys.path + config["sys_path"] + _SITE_PACKAGES)
    sys.argv = [config["handler"]]
    os.chdir(code)
    return output


def _unique(entries):
    seen = set()
    return [entry for entry in entries if not (entry in seen or seen.add(entry))]


def _check_interface():
    """Refuse an SDK that is newer than the core (sdk-contract 3); no SDK at all is fine."""
    sdk = sys.modules.get("greengrasssdk")
    if sdk is None:
        return
    found = str(getattr(sdk, "INTERFACE_VERSION", "1.0"))
    offered = env_vars.GGC_MAX_INTERFACE_VERSION or "1.0"
    (major, minor), (our_major, our_minor) = parse_version(found), parse_version(offered)
    if int(major) != int(our_major) or int(minor) > int(our_minor):
        raise RuntimeError(
            "the function's greengrasssdk speaks interface version %s, this core speaks %s: "
            "package the function with an older SDK or update the core" % (found, offered)
        )


def _message(error):
    try:
        return str(error)[:ERROR_TEXT_MAX]
    except Exception:
        return "an exception of type %s that can not be shown" % type(error).__name__


def _site_packages():
    """The interpreter's normal places for installed packages, and the directories their .pth files name."""
    found = []
    for directory in site.getsitepackages():
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        found.append(directory)
        for name in names:
            if name.endswith(".pth"):
                found.extend(_named_directories(directory, name))
    for directory in found:
        PathFinder.find_spec("ggworker_is_not_there", [directory])  # fills the finder's cache of names
    return found


def _named_directories(directory, name):
    try:
        with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as lines:
            entries = [line.strip() for line in lines]
    except OSError:
        return []
    # A line that begins with `import` is a program: running it would cost every worker.
    paths = [os.path.join(directory, e) for e in entries if e and not e.startswith(("#", "import ", "import\t"))]
    return [path for path in paths if os.path.isdir(path)]


_SITE_PACKAGES = _site_packages()  # in the image: a worker does not look for them again

_REHEARSAL = {
    "arn": "arn:aws:lambda:eu-west-1:123456789012:function:rehearsal:1",
    "name": "rehearsal",
    "version": "1",
    "handler": "ggrehearsal.handler",
    "encoding": "json",
    "timeout_s": 3,
    "memory_kb": 16384,
    "log_level": "INFO",
    "log_group": "",
    "log_stream": "",
    "code_dir": os.path.dirname(os.path.abspath(__file__)),
    "sys_path": [],
    "environment": {"REHEARSAL_%d" % number: "x" * (8 << number % 4) for number in range(24)},
}
