"""The Java virtual machine's flags for a function's memory limit. Source: sandbox 9 (measured). Pure.

What each group is for, and from which Java on it exists; what a Java does not know it skips:

    IgnoreUnrecognizedVMOptions, UnlockDiagnosticVMOptions     one list for Java 8 to 25; they come first
    DisplayVMOutputToStderr, Xlog (9)                          the machine's own warnings are errors in the log, not
                                                               lines among what the function prints
    UseSerialGC, -UsePerfData, CICompilerCount, Xss, Xms       few threads, little memory
    ArchiveRelocationMode (13)                                 class data stays where it was made for, so its pages
                                                               stay the file's: 7 MB less of its own in each worker
    useNativeAccessorOnly (22)                                 a handler called by reflection needs no method handles
    file.encoding                                              texts are UTF-8 everywhere, as in the cloud
    ErrorFile, CreateCoredumpOnCrash (9)                       a crash leaves no file: what it says first is in the log
"""

from __future__ import annotations

from typing import Final

from ggfast import limits

_ALWAYS: Final = (
    "-XX:+IgnoreUnrecognizedVMOptions",
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:+DisplayVMOutputToStderr",
    "-Xlog:disable",
    "-Xlog:all=warning,cds=error:stderr",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-XX:TieredStopAtLevel=1",
    "-XX:CICompilerCount=1",
    "-XX:ArchiveRelocationMode=0",
    "-XX:ErrorFile=/dev/null",
    "-XX:-CreateCoredumpOnCrash",
    "-Dfile.encoding=UTF-8",
    "-Djdk.reflect.useNativeAccessorOnly=true",
)


def java_flags(memory_kb: int, archive: str | None) -> list[str]:
    """Flags for a worker limited to `memory_kb` (0: no limit, the heap is then the machine's own choice).

    `archive`: the class-data archive of `java_archive.ensure_archive` as the worker sees it. None where there is no
    such file: a machine told of a missing or foreign archive does without its own too, and grows by 4 to 6 MB.
    """
    flags = list(_ALWAYS)
    if memory_kb:
        small = memory_kb <= limits.JAVA_SMALL_MEMORY_KB
        flags += ["-Xms2m", f"-Xmx{heap_kb(memory_kb)}k"]
        flags += ["-Xss256k", "-XX:ReservedCodeCacheSize=8m"] if small else ["-XX:ReservedCodeCacheSize=24m"]
    if archive:
        flags += ["-Xshare:auto", f"-XX:SharedArchiveFile={archive}"]
    return flags


def heap_kb(memory_kb: int) -> int:
    """The largest heap: half of a small limit, more of a large one, of which the machine itself needs less."""
    return max(memory_kb // 2, memory_kb * 3 // 4 - limits.JAVA_OUTSIDE_HEAP_KB, limits.JAVA_HEAP_KB_MIN)
