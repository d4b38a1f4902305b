"""Groups and definitions against the simplest thing that could be right: dictionaries.

Whatever is created, versioned, renamed and deleted in whatever order, the service says what the dictionaries say.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from cloud_desk import Desk
from cloud_greengrass import member
from hypothesis import given, settings
from hypothesis import strategies as st

from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass import GREENGRASS

Model = dict[str, dict[str, Any]]  # id -> name, tags, versions: (id, content), oldest first

names = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=5)
things = st.lists(st.sampled_from(["lamp", "door", "fan"]), unique=True, max_size=3)
verbs = st.sampled_from(["create", "create", "version", "version", "version", "rename", "delete"])
steps = st.lists(
    st.tuples(st.sampled_from(["Device", "Group"]), verbs, st.integers(0, 3), names, things), min_size=1, max_size=25
)


class Twin:
    """The service and its dictionaries, side by side."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.kept: dict[str, Model] = {"Device": {}, "Group": {}}

    def step(self, kind: str, verb: str, which: int, name: str, listed: list[str]) -> None:
        """One step on both."""
        container = "DeviceDefinition" if kind == "Device" else "Group"
        kept = self.kept[kind]
        content = self._content(kind, listed)
        if verb == "create":
            made = self.desk.call(f"Create{container}", Name=name or "-", InitialVersion=content, tags={"t": name})
            kept[made["Id"]] = {
                "name": name or "-",
                "tags": {"t": name},
                "versions": [(made["LatestVersion"], content)],
            }
            return
        identifier = list(kept)[which % len(kept)] if kept else "nothing"
        known = kept.get(identifier)
        member_name = f"{container}Id"
        try:
            if verb == "version":
                answer = self.desk.call(f"Create{container}Version", **{member_name: identifier}, **content)
                assert known is not None
                known["versions"].append((answer["Version"], content))
            elif verb == "rename":
                self.desk.call(f"Update{container}", **{member_name: identifier}, Name=name)
                assert known is not None and name
                known["name"] = name
            else:
                self.desk.call(f"Delete{container}", **{member_name: identifier})
                del kept[identifier]
        except Fault as fault:
            assert fault.status == 404 if known is None else (verb == "rename" and not name)

    def agree(self) -> None:
        """Every answer is what the dictionaries say."""
        for kind, container, listed in (
            ("Device", "DeviceDefinition", "Definitions"),
            ("Group", "Group", "Groups"),
        ):
            kept = self.kept[kind]
            found = self.desk.all(f"List{container}s", listed, MaxResults="2")
            assert [entry["Id"] for entry in found] == list(kept)
            for identifier, known in kept.items():
                one = {f"{container}Id": identifier}
                whole = self.desk.call(f"Get{container}", **one)
                assert (whole["Name"], whole["tags"]) == (known["name"], known["tags"])
                assert whole["LatestVersion"] == known["versions"][-1][0]
                versions = self.desk.all(f"List{container}Versions", "Versions", MaxResults="2", **one)
                assert [entry["Version"] for entry in versions] == [version for version, _ in known["versions"][::-1]]
                for version, content in known["versions"]:
                    answer = self.desk.call(f"Get{container}Version", **one, **{f"{container}VersionId": version})
                    assert answer["Definition"] == content

    def _content(self, kind: str, listed: list[str]) -> dict[str, Any]:
        if kind == "Device":
            return {"Devices": [member(name, name) for name in listed]}
        devices = self.kept["Device"]
        if not devices or not listed:
            return {}
        identifier, known = list(devices.items())[len(listed) % len(devices)]
        arn = self.desk.call("GetDeviceDefinition", DeviceDefinitionId=identifier)["Arn"]
        return {"DeviceDefinitionVersionArn": f"{arn}/versions/{known['versions'][0][0]}"}


@given(steps)
@settings(max_examples=40, deadline=None)
def test_groups_and_definitions_are_dictionaries(taken: list[tuple[str, str, int, str, list[str]]]) -> None:
    """Row 12: versions never change, whatever happens around them."""
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder), GREENGRASS)
        try:
            twin = Twin(desk)
            for step in taken:
                twin.step(*step)
            twin.agree()
        finally:
            desk.close()
