"""Where everything is: every path of an installation, in one value. Nobody else joins paths by hand.

Source: greengrass-core 2.2. The shape depends on the version profile (1.0 has no `ggc/` level and keeps its
configuration in `configuration/`) and on `writeDirectory` (written paths move there and lose `ggc/`).
Pure: looks at no disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ggfast import __version__

DEFAULT_ROOT = Path("/greengrass")
DEFAULT_PID_DIRECTORY = Path("/var/run")


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths under `root`; all absolute if `root` is."""

    root: Path
    configuration_directory: Path
    certs: Path
    base: Path
    written: Path
    pid_directory: Path = DEFAULT_PID_DIRECTORY
    version: str = __version__

    @classmethod
    def of(
        cls,
        root: Path,
        *,
        first_release: bool = False,
        write_directory: Path | None = None,
        pid_directory: Path = DEFAULT_PID_DIRECTORY,
    ) -> Layout:
        """The layout of V1.1 and later, or of V1.0 with `first_release`."""
        base = root if first_release else root / "ggc"
        configuration = root / ("configuration" if first_release else "config")
        certs = configuration / "certs" if first_release else root / "certs"
        return cls(root, configuration, certs, base, write_directory or base, pid_directory)

    @property
    def config_file(self) -> Path:
        """config.json."""
        return self.configuration_directory / "config.json"

    @property
    def pid_file(self) -> Path:
        """Names the running daemon; exists before `start` returns."""
        return self.pid_directory / "greengrassd.pid"

    # --- the software ---------------------------------------------------------------------------------

    @property
    def core_link(self) -> Path:
        """`ggc/core`, the link to the current package, where users run `./greengrassd start`."""
        return self.base / "core"

    @property
    def package(self) -> Path:
        """This version's own directory."""
        return self.base / "packages" / self.version

    @property
    def launcher(self) -> Path:
        """greengrassd of this version."""
        return self.package / "greengrassd"

    @property
    def daemon(self) -> Path:
        """The path `ps` shows for the daemon."""
        return self.package / "bin" / "daemon"

    @property
    def work(self) -> Path:
        """Root file systems and other things made anew at each start."""
        return self.written / "packages" / self.version

    # --- the deployed group ---------------------------------------------------------------------------

    @property
    def deployment(self) -> Path:
        """Everything a deployment writes; one file system, so that renames inside it are atomic."""
        return self.written / "deployment"

    @property
    def group(self) -> Path:
        """The directory of group.json and the device certificates; replaced as a whole."""
        return self.deployment / "group"

    @property
    def group_file(self) -> Path:
        """The deployed group document."""
        return self.group / "group.json"

    @property
    def deployment_file(self) -> Path:
        """Which deployment of the control plane the live group came by; replaced with the group."""
        return self.group / "deployment.json"

    @property
    def functions(self) -> Path:
        """One directory per function version, named by its ARN."""
        return self.deployment / "lambda"

    def function(self, arn: str) -> Path:
        """The unpacked package of the function version `arn`."""
        return self.functions / arn

    @property
    def models(self) -> Path:
        """Unpacked machine-learning models, named by their content; see core/functions/models.py."""
        return self.deployment / "models"

    @property
    def model_links(self) -> Path:
        """For functions without a container: directories of links that look like their models' destinations."""
        return self.deployment / "links"

    def certificate(self, certificate_id: str) -> Path:
        """A device's certificate in PEM form."""
        return self.group / "certificates" / f"{certificate_id}.pem"

    @property
    def java_archives(self) -> Path:
        """Class data of the Java installations that functions were deployed for; functions' copies are links to it."""
        return self.deployment / "java"

    @property
    def staging(self) -> Path:
        """Groups being prepared; emptied by recovery."""
        return self.deployment / "staging"

    @property
    def downloads(self) -> Path:
        """Artifacts of the deployment being fetched, named by content; parts of them stay for another try."""
        return self.deployment / "downloads"

    @property
    def agent_state(self) -> Path:
        """What the deployment agent is at and has to report."""
        return self.deployment / "agent.state"

    @property
    def previous(self) -> Path:
        """What an unconfirmed activation replaced; emptied by confirmation."""
        return self.deployment / "previous"

    @property
    def previous_functions(self) -> Path:
        """Function packages that an unconfirmed activation has put aside, named as in `functions`."""
        return self.previous / "lambda"

    @property
    def journal(self) -> Path:
        """Exists exactly while an activation is unconfirmed."""
        return self.deployment / "activation.json"

    # --- logs and state -------------------------------------------------------------------------------

    @property
    def logs(self) -> Path:
        """The log tree."""
        return self.written / "var" / "log"

    @property
    def crash_log(self) -> Path:
        """Output of a daemon that died."""
        return self.logs / "crash.log"

    @property
    def system_logs(self) -> Path:
        """One file per system component."""
        return self.logs / "system"

    @property
    def user_logs(self) -> Path:
        """Function logs by region and account."""
        return self.logs / "user"

    @property
    def state(self) -> Path:
        """Shadows, spool, sessions, server certificate."""
        return self.written / "var" / "state"

    @property
    def token_key(self) -> Path:
        """What functions' tokens are made with; the daemon's own."""
        return self.state / "token.key"

    @property
    def shadow_file(self) -> Path:
        """The local shadows."""
        return self.state / "shadow" / "shadows.db"

    @property
    def trust_file(self) -> Path:
        """What the control plane said last of the certificates this core depends on."""
        return self.state / "trust.json"

    @property
    def control_socket(self) -> Path:
        """Where the command line talks to the running core; in a directory of root, so that nobody can swap it."""
        return self.written / "socket" / "control.sock"

    @property
    def server_certificate(self) -> Path:
        """The local MQTT server's certificate."""
        return self.state / "server" / "server.crt"

    @property
    def server_key(self) -> Path:
        """Its private key, where `crypto` names no other."""
        return self.state / "server" / "server.key"

    @property
    def written_directories(self) -> tuple[Path, ...]:
        """The directories the daemon writes into, parents first."""
        own = (self.deployment, self.group, self.functions, self.models, self.model_links, self.staging)
        return (self.written, *own, self.logs, self.system_logs, self.user_logs, self.state, self.server_key.parent)
