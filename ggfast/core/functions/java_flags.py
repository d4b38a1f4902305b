"""The Java virtual machine's flags for a function's memory limit. Source: sandbox 9 (measured). Pure."""

from __future__ import annotations


def java_flags(memory_kb: int, archive: str | None) -> list[str]:
    """Flags for a small heap; `memory_kb` 0: no limit, so the machine's own choice. `archive`: class data to map."""
    flags = ["-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xshare:auto"]
    if memory_kb:
        heap_kb = max(memory_kb // 2, 4096)
        flags += ["-Xss256k", "-Xms2m", f"-Xmx{heap_kb}k", "-XX:TieredStopAtLevel=1", "-XX:CICompilerCount=1"]
        flags += ["-XX:ReservedCodeCacheSize=8m", "-XX:+UnlockDiagnosticVMOptions"]
        flags += ["-XX:+IgnoreUnrecognizedVMOptions", "-XX:ArchiveRelocationMode=0"]
    if archive:
        flags.append(f"-XX:SharedArchiveFile={archive}")
    return flags
