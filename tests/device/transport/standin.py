"""A stand-in for `adb` and `ssh`: far commands run on this machine, and go wrong on request.

`install` writes both programs into a folder, to be put first on PATH or named as `program`. What
they do is in `control.json` beside them, which `Standin.set` writes, so that it may change while a
command of the workbench runs:

    devices   what `adb devices` lists: {"serial", "state", "model"} each
    faults    each {"kind", "program", "on", "nth", "match"}: `program` is adb or ssh,
              both by default; `on` is run, push, pull, any of these (the default), devices,
              connect or state; `nth` counts the calls that match, from 1, 0 being every one;
              `match` is text that the call must hold

Kinds, of both programs: lost (the connection breaks in the middle), hang, full (no room on the
device), garbage (bytes around the output), half (the output is cut, and the client says nothing of
it). Of ssh: refused, timeout, key-changed, key-unknown, denied, unresolved. Of adb: offline,
unauthorized, missing, several, closed, server, permissions.

Far paths under /data/local/tmp are in the stand-in's own folder; so is the home of ssh. Programs in
its `bin` go first on the far PATH. This file is the stand-in too, run as a script.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

FAR = "/data/local/tmp"

SSH = {
    "refused": "ssh: connect to host board port 22: Connection refused",
    "timeout": "ssh: connect to host board port 22: Connection timed out",
    "key-changed": "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\n"
    "Host key verification failed.",
    "key-unknown": "No ED25519 host key is known for board and strict checking.\n"
    "Host key verification failed.",
    "denied": "user@board: Permission denied (publickey).",
    "unresolved": "ssh: Could not resolve hostname board: Name or service not known",
}
ADB = {
    "offline": "error: device offline",
    "unauthorized": "error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set\n"
    "Try 'adb kill-server' if that seems wrong.\n"
    "Otherwise check for a confirmation dialog on your device.",
    "missing": "error: device 'A1' not found",
    "several": "error: more than one device/emulator",
    "closed": "error: closed",
    "server": "* daemon not running; starting now at tcp:5037\nADB server didn't ACK\n"
    "* failed to start daemon\nadb: error: cannot connect to daemon",
    "permissions": "error: insufficient permissions for device: user in plugdev group; are your "
    "udev rules wrong?\nSee [http://developer.android.com/tools/device.html] for more information",
}


class Standin:
    """The installed programs. root: what stands for the device's file system; log: its calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "device"
        self.adb = str(folder / "adb")
        self.ssh = str(folder / "ssh")

    def set(self, *faults: dict[str, object], devices: list[dict[str, str]] | None = None) -> None:
        """What goes wrong from now on; counts begin anew. `{"kind": "lost"}` is every call."""
        known = [{"serial": "A1", "state": "device", "model": "Stand_in"}]
        control = {"devices": known if devices is None else devices, "faults": list(faults)}
        (self.folder / "state.json").unlink(missing_ok=True)
        part = self.folder / "control.part"
        part.write_text(json.dumps(control))
        part.replace(self.folder / "control.json")

    def calls(self) -> list[list[str]]:
        """The arguments of every call until now."""
        log = self.folder / "calls.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def files(self) -> list[str]:
        """The files on the device, from its root."""
        return sorted(str(p.relative_to(self.root)) for p in self.root.rglob("*") if p.is_file())


def install(folder: Path, *faults: dict[str, object]) -> Standin:
    """Write `adb` and `ssh` into a folder, which must have no blanks in its path."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in ("device/data/local/tmp", "device/bin", "device/home"):
        (folder / one).mkdir(parents=True, exist_ok=True)
    text = f"#!{sys.executable} -ISs\n" + Path(__file__).read_text(encoding="utf-8")
    for name in ("adb", "ssh"):
        program = folder / name
        program.write_text(text, encoding="utf-8")
        program.chmod(0o755)
    found = Standin(folder)
    found.set(*faults)
    return found


# The rest runs as a script.


class Client:
    def __init__(self, program: Path, arguments: list[str]) -> None:
        self.folder = program.parent
        self.root = self.folder / "device"
        self.name = program.name
        self.arguments = arguments
        self.control = json.loads((self.folder / "control.json").read_text())
        with (self.folder / "calls.jsonl").open("a") as log:
            log.write(json.dumps([self.name, *arguments]) + "\n")

    def fault(self, verb: str, text: str) -> str:
        """The kind of what goes wrong with this call, '' where nothing does."""
        path = self.folder / "state.json"
        with path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            counts = json.loads(file.read() or "{}")
            found = ""
            for place, one in enumerate(self.control["faults"]):
                on, wide = one.get("on", "any"), one["kind"] == "server"
                if on != verb and not (on == "any" and (wide or verb in ("run", "push", "pull"))):
                    continue
                if one.get("program", self.name) != self.name:
                    continue
                if one.get("match", "") not in text:
                    continue
                count = counts[str(place)] = counts.get(str(place), 0) + 1
                if one.get("nth", 0) in (0, count):
                    found = found or one["kind"]
            file.truncate(0)
            file.write(json.dumps(counts))
        if found in {**SSH, **ADB}:
            self.fail({**SSH, **ADB}[found])
        return found

    def fail(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
        sys.exit(255 if self.name == "ssh" else 1)

    def here(self, path: str) -> Path:
        return self.root / path.removeprefix(str(self.root)).lstrip("/")

    def far(self, script: str, verb: str) -> None:
        """Run a script as the device's shell does, and end as the client would."""
        kind = self.fault(verb, script)
        # A path may be one that an earlier script asked for, and so be here already.
        script = script.replace(f"{self.root}{FAR}", FAR).replace(FAR, f"{self.root}{FAR}")
        if kind == "hang":
            time.sleep(600)
        if kind == "full":
            script = script.replace("cat > ", "cat > /dev/full #").replace(
                "mkdir", "mkdir /dev/full/"
            )
        stdin = None
        if kind == "lost" and verb == "push":
            stdin = subprocess.PIPE
        if kind == "garbage":
            os.write(1, b"\x1b[0mlast login: never\xff\xfe\n")
        home = self.root / ("home" if self.name == "ssh" else "")
        child = subprocess.Popen(
            ["/bin/sh", "-c", script],
            cwd=home,
            stdin=stdin,
            stdout=subprocess.PIPE if kind in ("lost", "half") else None,
            start_new_session=True,  # ending the client does not end what runs on the device
            env={"PATH": f"{self.root}/bin:{os.environ['PATH']}", "HOME": str(home)},
        )
        if kind not in ("lost", "half"):
            code = child.wait()
            if kind == "garbage":
                os.write(1, b"\x00\xff half a li")
            sys.exit(code)
        if stdin is not None:
            assert child.stdin is not None
            given = sys.stdin.buffer.read()
            child.stdin.write(given[: len(given) // 2])
            child.stdin.close()
        assert child.stdout is not None
        out = child.stdout.read()
        os.write(1, out[: len(out) // 2])
        child.wait()
        if kind == "half":
            sys.exit(0)
        self.fail(
            "client_loop: send disconnect: Broken pipe\nConnection to board closed by remote host."
            if self.name == "ssh"
            else "error: closed"
        )


def ssh(client: Client) -> None:
    if "-O" in client.arguments:
        return
    script = client.arguments[-1]
    verb = "push" if "cat > " in script else "pull" if "&& cat <" in script else "run"
    client.far(script, verb)


def adb(client: Client) -> None:
    rest, serial = client.arguments, ""
    if rest[0] == "-s":
        serial, rest = rest[1], rest[2:]
    devices, verb = client.control["devices"], rest[0]
    if verb == "devices":
        client.fault("devices", verb)
        print("List of devices attached")
        for one in devices:
            print(f"{one['serial']}\t{one['state']} usb:1-1 model:{one['model']} transport_id:1")
        print()
        return
    if verb in ("connect", "disconnect", "reconnect", "start-server", "kill-server"):
        client.fault("connect", verb)
        print(f"connected to {rest[-1]}" if verb == "connect" else "done")
        return
    found = [one for one in devices if one["serial"] == serial] if serial else devices
    if not found:
        client.fail(
            f"error: device '{serial}' not found" if serial else "error: no devices/emulators found"
        )
    if len(found) > 1:
        client.fail(ADB["several"])
    if found[0]["state"] in ADB:
        client.fail(ADB[found[0]["state"]])
    if verb == "shell":
        script = shlex.join(rest[1:]) if rest[1] != "-T" else " ".join(rest[2:])
        client.far(script, "run")
    elif verb in ("push", "pull"):
        copy(client, verb, *rest[1:])
    elif verb == "get-state":
        client.fault("state", verb)
        print("device")


def copy(client: Client, verb: str, source: str, target: str) -> None:
    given, taken = Path(source), client.here(target)
    if verb == "pull":
        given, taken = client.here(source), Path(target)
    kind = client.fault(verb, f"{source} {target}")
    if kind == "hang":
        time.sleep(600)
    try:
        data = given.read_bytes()
        if kind:
            taken.write_bytes(data[: len(data) // 2])
        if kind == "half":
            return
        if kind == "full":
            client.fail(
                f"adb: error: failed to copy '{source}' to '{target}': remote couldn't write file: "
                "No space left on device"
            )
        if kind:
            client.fail(f"adb: error: failed to copy '{source}' to '{target}': remote closed")
        taken.write_bytes(data)
    except OSError as error:
        client.fail(f"adb: error: failed to stat '{source}': {error.strerror}")
    print("1 file copied")


if __name__ == "__main__":
    client = Client(Path(sys.argv[0]).resolve(), sys.argv[1:])
    (adb if client.name == "adb" else ssh)(client)
