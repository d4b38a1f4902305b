"""The seven kinds of definitions, and the words that the real service has for each in its refusals (cloud-api 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ggfast.cloud.greengrass import contents
from ggfast.cloud.greengrass.containers import Container
from ggfast.cloud.greengrass.contents import Content
from ggfast.cloud.shapes import Member, Shape


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of definition: what differs from the others."""

    name: str  # in operations and members: "Core"
    path: str  # in paths and ARNs: "cores"
    content: Mapping[str, Shape | Member]  # members of a version
    faults: Callable[[Content], list[str]]  # what is wrong with a content
    corrupted: str  # said before those
    list_word: str  # "That <> List Definition does not exist."
    word: str  # "That <> definition does not exist."
    referred: str  # "<> definition reference does not exist"
    unknown: str = ""  # text of Get, where it is not made of `list_word`
    unknown_for_version: str = ""  # text of CreateVersion, where it is not made of `word`
    unknown_version_code: str = "VersionNotFoundException"
    nameless: tuple[str, str] = (
        "InvalidContainerDefinitionException",
        "Input does not contain any attributes to be updated",
    )

    @property
    def container(self) -> Container:
        """Where definitions of this kind lie."""
        return Container("definition", f"/{self.path}", f"/greengrass/definition/{self.path}")

    @property
    def id_member(self) -> str:
        """The path member with a definition's id."""
        return f"{self.name}DefinitionId"

    @property
    def version_member(self) -> str:
        """The path member with a version's id."""
        return f"{self.name}DefinitionVersionId"

    @property
    def reference_member(self) -> str:
        """The member of a group version that names a version of this kind."""
        return f"{self.name}DefinitionVersionArn"


def _invalid(word: str) -> str:
    return f"The {word} definition is invalid or corrupted."


# In the order in which the real service lists bad references of a group version; of the last two nothing is known.
KINDS = (
    Kind(
        name="Core",
        path="cores",
        content=contents.CORES,
        faults=contents.repeated_ids,
        corrupted=_invalid("cores"),
        list_word="Core",
        word="cores",
        referred="Cores",
        unknown="That Core List Definition does not exist",
    ),
    Kind(
        name="Function",
        path="functions",
        content=contents.FUNCTIONS,
        faults=contents.repeated_ids,
        corrupted=_invalid("lambdas"),
        list_word="Lambda",
        word="lambdas",
        referred="Lambda",
        unknown_for_version="That lambdas does not exist.",
        unknown_version_code="IdNotFoundException",
    ),
    Kind(
        name="Resource",
        path="resources",
        content=contents.RESOURCES,
        faults=contents.resource_faults,
        corrupted="The resources definition is invalid.",
        list_word="Resource",
        word="resources",
        referred="Resource",
        unknown_for_version="That resource definition does not exist.",
        nameless=("InvalidInputException", "Invalid resource name."),
    ),
    Kind(
        name="Device",
        path="devices",
        content=contents.DEVICES,
        faults=contents.repeated_ids,
        corrupted=_invalid("devices"),
        list_word="Device",
        word="devices",
        referred="Devices",
    ),
    Kind(
        name="Subscription",
        path="subscriptions",
        content=contents.SUBSCRIPTIONS,
        faults=contents.subscription_faults,
        corrupted=_invalid("subscriptions"),
        list_word="Subscription",
        word="subscriptions",
        referred="Subscription",
        unknown_for_version="That subscriptions does not exist.",
    ),
    Kind(
        name="Logger",
        path="loggers",
        content=contents.LOGGERS,
        faults=contents.repeated_ids,
        corrupted=_invalid("loggers"),
        list_word="Logger",
        word="loggers",
        referred="Logger",
    ),
    Kind(
        name="Connector",
        path="connectors",
        content=contents.CONNECTORS,
        faults=contents.repeated_ids,
        corrupted=_invalid("connectors"),
        list_word="Connector",
        word="connectors",
        referred="Connector",
    ),
)

BY_PATH = {kind.path: kind for kind in KINDS}
