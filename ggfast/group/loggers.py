"""Loggers of a group: what they say, and the rules the log files follow (greengrass-core 4.2, 14.1)."""

from __future__ import annotations

from ggfast import limits
from ggfast.fields import Fields
from ggfast.group.document import Group, LogComponent, Logger, LogTarget
from ggfast.group.entities import read_id
from ggfast.log import Level, LogRule


def log_rules(group: Group) -> tuple[LogRule | None, LogRule | None]:
    """(system, functions): which lines go to files and how much space they take; None means none do.

    A group without loggers logs both at INFO in 128 KB; with loggers only what they list is active.
    """
    if not group.loggers:
        return LogRule(), LogRule()
    return _rule(group, LogComponent.SYSTEM), _rule(group, LogComponent.FUNCTIONS)


def _rule(group: Group, component: LogComponent) -> LogRule | None:
    for logger in group.loggers:
        if logger.target is LogTarget.FILE_SYSTEM and logger.component is component:
            return LogRule(logger.level, logger.space_kb * limits.KIB or limits.LOG_SPACE_BYTES_DEFAULT)
    return None


def read_logger(source: Fields, position: int, *, deployed: bool) -> Logger:
    """One entry of `Loggers`; `space_kb` 0 means not given."""
    return Logger(
        id=read_id(source, default=f"logger-{position}" if deployed else None),
        target=LogTarget(source.choice("Type", tuple(LogTarget))),
        component=LogComponent(source.choice("Component", tuple(LogComponent))),
        level=Level[source.choice("Level", tuple(level.name for level in Level))],
        space_kb=source.integer("Space", 1, limits.LOG_SPACE_KB_MAX, default=0, unit="KB"),
    )
