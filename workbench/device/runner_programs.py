"""The programs that run artifacts on a device: what they need there, and how they are called."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.artifact import digest
from workbench.device.runner_plan import Plan
from workbench.device.transport.base import Done, TimedOut, Transport
from workbench.errors import CrashError, DeviceError, ProfileError

if TYPE_CHECKING:
    from workbench.device.health.identity import Identity
    from workbench.device.profile import Device, Library

# Brings a file of this machine to the device: its path there. The flag says that it is a program.
Place = Callable[[Path, bool], str]


@dataclass(frozen=True)
class Runner:
    """A runner in place on a device.

    Attributes:
        argv: what starts it.
        libraries: its runtimes' paths there.
    """

    kind: str
    argv: tuple[str, ...]
    libraries: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What messages call it."""
        return "benchmark_model" if self.kind == "benchmark_model" else f"the {self.kind} runner"

    def planned(self, plan: Plan) -> Plan:
        """The plan with the library that this runner opens. Raises DeviceError without one."""
        if self.kind == "python":
            return plan
        if plan.runtime not in self.libraries:
            raise DeviceError(
                f"no library of {plan.runtime} is known for this device",
                "the native runner opens the runtime's shared library",
                f'name it in the profile: [libraries] {plan.runtime} = {{ push = "FILE" }}',
            )
        return replace(plan, library=self.libraries[plan.runtime])

    def run(
        self, transport: Transport, prefix: Sequence[str], arguments: Sequence[str], limit: float
    ) -> Done:
        """One process that ended well. Raises DeviceError, CrashError for one that died."""
        # Its own alarm ends it first, wherever the connection has gone meanwhile.
        done = transport.run([*prefix, *self.argv, *arguments], timeout=limit + 30)
        check(done, self.name, limit)
        return done


def target_of(identity: Identity) -> str:
    """The name of the build that a device takes. Raises DeviceError where there is none."""
    if identity.system == "android" and identity.architecture == "arm":
        return "android-arm64"
    targets = {"arm": "aarch64-linux", "x86": "x86_64-linux"}
    if identity.architecture not in targets or identity.system != "linux":
        raise DeviceError(
            f"there is no native runner for {identity.system} on {identity.architecture}",
            "",
            'set runner = "python" in the profile, where the device has the packages',
        )
    return targets[identity.architecture]


def install(device: Device, identity: Identity, runtimes: Sequence[str], place: Place) -> Runner:
    """The profile's runner, brought to the device with the libraries of those runtimes.

    Raises DependencyError where something cannot be built or got, ProfileError for a digest that is
    another.
    """
    ready = {name: _bring(entry, name, place) for name, entry in device.libraries.items()}
    if device.runner == "python":
        script = Path(__file__).with_name("native") / "runner.py"
        return Runner("python", (ready.get("python", "python3"), place(script, False)))
    if device.runner == "benchmark_model":
        return Runner("benchmark_model", (ready["benchmark_model"],))
    from workbench.device.native.build import runner_for
    from workbench.device.native.libraries import libraries

    target = target_of(identity)
    program = ready.get("runner") or place(runner_for(target), True)
    missing = [name for name in runtimes if name not in ready]
    fetched = libraries(target, missing) if missing else {}
    pushed = {name: place(fetched[name], False) for name in missing if name in fetched}
    return Runner("native", (program,), {**ready, **pushed})


def _bring(library: Library, name: str, place: Place) -> str:
    """A library's path on the device, once it is there and what the profile says."""
    if not library.pushed:
        return library.path
    path = Path(library.path)
    if not path.is_file():
        raise ProfileError(f"libraries.{name}: there is no file {path}")
    if library.sha256 and digest(path) != library.sha256:
        raise ProfileError(
            f"libraries.{name}: {path} is not the file that the profile names",
            f"its SHA-256 is {digest(path)}, not {library.sha256}",
            "get it again, or correct the digest where you trust the file",
        )
    return place(path, name in ("benchmark_model", "runner"))


ENDINGS = {
    "SIGILL": "its library uses instructions that this CPU lacks: give one built for it",
    "SIGKILL": "the system ended it, as it does when memory runs out: free memory, or use a "
    "smaller model",
    "SIGSEGV": "the runtime crashed on this file: try another version of its library",
    "SIGABRT": "the runtime gave up on this file: try another version of its library",
    "SIGBUS": "a file of it was cut off or changed while it ran: run again",
}


def check(done: Done, runner: str, limit: float) -> None:
    """Raise what a runner's exit code says. Code 3 comes with a line that says why."""
    if done.code in (0, 3):
        return
    last = next((line for line in reversed(done.stderr.strip().splitlines()) if line.strip()), "")
    last = re.sub(r"[^\x20-\x7e\u00a0-\uffff]", "?", last)[:200]
    if done.code in (126, 127):
        raise DeviceError(
            f"{runner} does not start",
            last or f"exit code {done.code}",
            "it is missing, or built for another system: 'wb devices build-runner', and see the "
            "profile's runner and libraries",
        )
    if done.code > 128:
        number = done.code - 128
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        if name == "SIGALRM":
            raise TimedOut(
                f"{runner} took longer than {limit:g} s",
                "limits.timeout of the profile ended it",
                "raise the limit, or measure with --quick",
            )
        why = f"{name}; it last said: {last}" if last else name
        raise CrashError(f"{runner} died", why, ENDINGS.get(name, ""))
    raise DeviceError(f"{runner} failed with exit code {done.code}", last)
