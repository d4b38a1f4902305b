"""Writes config.example.md, the list of every setting in config.json, from the declarations in ggfast/config.py.

    python packaging/config_table.py          write the file
    python packaging/config_table.py --check  exit 1 if it differs

A test runs the check.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ggfast.config import CoreThing, GgfastSettings, Runtime, System
from ggfast.settings import declared

TARGET = Path(__file__).with_name("config.example.md")
SECTIONS = (("coreThing", CoreThing), ("runtime", Runtime), ("system", System), ("ggfast", GgfastSettings))
HEAD = """# config.json

Every setting the core reads, at its default. A change takes effect at the next start. Unknown settings are ignored
and named in `runtime.log`. This table is made by `packaging/config_table.py`.

The smallest file for a core without a cloud:

```json
{
  "coreThing": {"thingArn": "arn:aws:iot:eu-west-1:123456789012:thing/my_core"},
  "ggfast": {"local": true}
}
```

A core with a cloud needs `caPath`, `certPath`, `keyPath`, `iotHost` and `ggHost` in `coreThing` as well, or `crypto`
in place of the three paths.

| Setting | Default | Values | Since | What for |
|---|---|---|---|---|
"""
# Settings whose shape or rule is more than one value of one kind; ggfast/config.py reads each by hand.
BY_HAND = (
    (
        "coreThing.thingArn",
        "required",
        "`arn:<partition>:iot:<region>:<account>:thing/<name>`",
        "1.0",
        "who this core is",
    ),
    ("coreThing.networkProxy.proxy.url", "", "http(s)://host:port", "1.7", "proxy for cloud traffic and functions"),
    ("coreThing.networkProxy.proxy.username", "", "text", "1.7", "basic authentication at the proxy"),
    ("coreThing.networkProxy.proxy.password", "", "text", "1.7", "basic authentication at the proxy"),
    ("coreThing.networkProxy.noProxyAddresses", "", "comma-separated", "1.7", "addresses reached directly"),
    ("managedRespawn", "false", "true or false", "1.3", "whether updates call the hook scripts"),
    ("writeDirectory", "", "an absolute path", "1.6", "everything written goes here; the root may be read-only"),
    ("pidFileDirectory", "/var/run", "an absolute path", "1.11", "where greengrassd.pid is"),
    ("crypto.caPath", "", "file:///path", "1.7", "root CA; `crypto` wins over the paths in coreThing"),
    ("crypto.principals.IoTCertificate.certificatePath", "", "file:///path", "1.7", "core certificate"),
    ("crypto.principals.IoTCertificate.privateKeyPath", "", "file:///path or pkcs11:…", "1.7", "core private key"),
    ("crypto.principals.MQTTServerCertificate.privateKeyPath", "", "file:///path or pkcs11:…", "1.7", "server key"),
    ("crypto.principals.SecretsManager.privateKeyPath", "", "file:///path or pkcs11:…", "1.7", "key of the secrets"),
    ("crypto.PKCS11.P11Provider", "", "a path", "1.7", "library of the hardware module"),
    ("crypto.PKCS11.slotLabel", "", "text", "1.7", "slot of the hardware module"),
    ("crypto.PKCS11.slotUserPin", "", "text", "1.7", "its pin"),
    ("crypto.PKCS11.OpenSSLEngine", "", "a path", "1.7", "engine for OpenSSL"),
    (
        "ggfast.versionProfile",
        "1.11",
        "1.0 to 1.11",
        "ggfast",
        "V1 release to present; 1.0 in configuration/config.json",
    ),
)


def render() -> str:
    """The whole page."""
    rows = list(BY_HAND)
    for section, kind in SECTIONS:
        for _, setting, default in declared(kind):
            rows.append(
                (
                    f"{section}.{setting.key}",
                    _shown(default, setting.rule),
                    setting.rule,
                    setting.since,
                    setting.meaning,
                )
            )
    return HEAD + "".join(
        f"| `{row[0]}` | {f'`{row[1]}`' if row[1] else ''} | {' | '.join(row[2:])} |\n" for row in rows
    )


def _shown(default: object, rule: str) -> str:
    if isinstance(default, bool):
        words = ("no", "yes") if "yes" in rule else ("false", "true")
        return words[default]
    if isinstance(default, tuple):
        return " ".join(default)
    return "" if default in (None, "") else str(default)


def main() -> int:
    """Write or check the file."""
    if "--check" in sys.argv[1:]:
        same = TARGET.read_text(encoding="utf-8") == render()
        print("up to date" if same else f"{TARGET.name} differs: run python packaging/config_table.py")
        return 0 if same else 1
    TARGET.write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
