"""The machines that can be emulated here, and the command that starts one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """One architecture: Debian's name for it, and what its emulator and kernel call their parts."""

    architecture: str
    emulator: str
    model: tuple[str, ...]
    console: str
    bus: str  # where virtio devices sit: the suffix of their names


# -nodefaults leaves a machine without a serial line; -serial brings it back. Five-level page tables (la57) double what
# the emulator walks at every miss.
MACHINES = {
    "amd64": Machine("amd64", "qemu-system-x86_64", ("-M", "q35", "-cpu", "max,la57=off"), "ttyS0", "pci"),
}

ROOT_LABEL = "ggfast-root"
RESULT_SERIAL = "ggfast-result"
PROCESSORS = 2


def command(
    machine: Machine, directory: Path, *, init: str, words: tuple[str, ...] = (), memory_mb: int, kvm: bool = False
) -> list[str]:
    """The emulator's command line for the kernel, initrd, root.img and result.img in `directory`.

    Software emulation unless `kvm`. No network card. The root image itself stays as it is: what the guest writes
    goes to a temporary file. It ends when the guest powers off, panics or restarts.
    """
    line = f"root=LABEL={ROOT_LABEL} rw console={machine.console} quiet panic=-1 init={init}"
    return [
        machine.emulator, *machine.model, "-accel", "kvm" if kvm else "tcg",
        "-smp", str(PROCESSORS), "-m", str(memory_mb),
        "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-nic", "none", "-no-reboot",
        "-kernel", str(directory / "vmlinuz"), "-initrd", str(directory / "initrd.img"),
        "-append", " ".join((line, *words)),
        *_disk(machine, "root", directory / "root.img", "snapshot=on", ROOT_LABEL),
        *_disk(machine, "result", directory / "result.img", "snapshot=off", RESULT_SERIAL),
        "-device", f"virtio-rng-{machine.bus}",
    ]  # fmt: skip


def _disk(machine: Machine, name: str, image: Path, snapshot: str, serial: str) -> list[str]:
    drive = f"file={str(image).replace(',', ',,')},format=raw,if=none,id={name},{snapshot}"
    return ["-drive", drive, "-device", f"virtio-blk-{machine.bus},drive={name},serial={serial}"]
