"""Accounts that no function may run as: what sudo's files name."""

from __future__ import annotations

from pathlib import Path

from ggfast.sandbox.accounts import sudoers

RULES = """
# comment ALL=(ALL) ALL
Defaults env_reset, secure_path="/usr/bin=x"
root\tALL=(ALL:ALL) ALL
deploy ALL = NOPASSWD: ALL
anna, bert   gateway = /bin/systemctl
User_Alias OPERATORS = carla, dirk, \\
    emil
OPERATORS ALL=(ALL) ALL
%sudo ALL=(ALL:ALL) ALL
Cmnd_Alias STOP = /bin/halt
Host_Alias HERE = gateway
@includedir /etc/sudoers.d
"""


def test_accounts_named_by_sudo(tmp_path: Path) -> None:
    (tmp_path / "sudoers").write_text(RULES)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "90-cloud").write_text('"fritz" ALL=(ALL) NOPASSWD:ALL\n')
    (tmp_path / "d" / "broken").write_bytes(b"\xff\xfe = \x00")
    found = sudoers([str(tmp_path / "sudoers"), str(tmp_path / "d" / "*"), str(tmp_path / "none")])
    assert found >= {"root", "deploy", "anna", "bert", "carla", "dirk", "emil", "fritz"}
    assert not found & {"gateway", "HERE", "STOP", "%sudo", "comment", "Defaults", "env_reset"}
