"""Far commands arrive as they are, and their exit codes are their own."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.device.transport import Interrupted, TimedOut
from workbench.device.transport.calls import Beat, Calls
from workbench.device.transport.local import LocalTransport
from workbench.device.transport.shell import unwrap_output, wrap_command
from workbench.errors import DeviceError

pytestmark = pytest.mark.process

NASTY = [
    "; rm -rf $HOME .onnx", "a b", "it's", '"', "$(id)", "`id`", "-n", "--", "a\nb", "\n", "", "é✓",
    "*", "~", "\\", "a\\", "%s", "!x", "&", "|", "#", "\t", "A=B",
]  # fmt: skip
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


def through_sh(argv):
    """A command wrapped for a far shell, which this machine plays."""
    done = LocalTransport("here").run(["sh", "-c", wrap_command(argv, "n1")])
    return unwrap_output(done.stdout.encode(), "n1")


@settings(max_examples=60, deadline=None)
@given(st.lists(words | st.sampled_from(NASTY), min_size=1, max_size=6))
def test_arguments_arrive_as_they_are(arguments):
    found = through_sh(["printf", "%s\\0", *arguments])
    assert found == ("".join(f"{one}\0" for one in arguments).encode(), 0)


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 255"], 255),
        (["exit", "7"], 7),
        (["sh", "-c", "kill -9 $$"], 137),
        (["/no/such/program"], 127),
        (["if"], 127),
        (["A=B"], 127),
        (["{"], 127),
    ],
)
def test_exit_codes_are_the_programs_own(argv, code):
    assert through_sh(argv) == (b"", code)


@given(st.binary(max_size=200))
def test_output_is_what_stands_between_the_marks(content):
    said = b"junk\n" + b"wb-far:n1:begin:12\n" + content + b"\nwb-far:n1:0\n" + b"more"
    assert unwrap_output(said, "n1") == (content, 0)


@pytest.mark.parametrize(
    "said",
    [b"", b"wb-far:n1:begin:1\nhalf", b"x\nwb-far:n1:0\n", b"wb-far:n1:begin:1\n\nwb-far:n2:0\n"],
)
def test_without_both_marks_it_did_not_end(said):
    assert unwrap_output(said, "n1") is None


def test_old_adb_ends_lines_with_two_characters():
    assert unwrap_output(b"wb-far:n1:begin:1\r\nx\r\nwb-far:n1:3\r\n", "n1") == (b"x", 3)


def test_an_interrupt_holds_until_it_is_lifted():
    here = LocalTransport("here")
    threading.Timer(0.3, here.interrupt).start()
    start = time.monotonic()
    with pytest.raises(Interrupted):
        here.run(["sleep", "30"])
    assert time.monotonic() - start < 0.3 + 0.5
    with pytest.raises(Interrupted):
        here.run(["true"])
    here.resume()
    assert here.run(["true"]).code == 0


def test_a_time_out_ends_the_process_and_its_children(tmp_path):
    here = LocalTransport("here")
    with pytest.raises(TimedOut, match=r"here: sh took longer than 0\.5 s"):
        here.run(["sh", "-c", f"(sleep 1; touch {tmp_path}/late) & wait"], timeout=0.5)
    time.sleep(1.2)
    assert not (tmp_path / "late").exists()


def test_a_daemon_that_keeps_the_pipes_is_not_waited_for():
    start = time.monotonic()
    assert LocalTransport("here").run(["sh", "-c", "echo x; sleep 20 &"]).stdout == "x\n"
    assert time.monotonic() - start < 5


def test_endless_output_is_refused(monkeypatch):
    monkeypatch.setattr("workbench.device.transport.calls.LARGEST", 1 << 20)
    with pytest.raises(DeviceError, match="wrote more than"):
        LocalTransport("here").run(["cat", "/dev/zero"], timeout=20)


def test_much_on_both_outputs_does_not_block():
    script = "head -c 3000000 /dev/zero; head -c 9000000 /dev/zero >&2; exit 3"
    done = LocalTransport("here").run(["sh", "-c", script])
    assert (done.code, len(done.stdout)) == (3, 3_000_000)


@pytest.mark.parametrize(
    ("argv", "code"),
    [(["sh", "-c", "kill -11 $$"], 139), (["/no/such"], 127), (["/etc/passwd"], 126)],
)
def test_the_local_machine_counts_as_a_shell(argv, code):
    assert LocalTransport("here").run(argv).code == code


@pytest.mark.parametrize(
    ("answer", "misses"), [("false", True), ("sleep 9", True), ("true", False)]
)
def test_two_silences_in_a_row_end_a_command(answer, misses):
    beat = Beat(answer.split(), every=0.1, limit=0.2)
    calls = Calls("phone")
    if misses:
        with pytest.raises(DeviceError, match="phone does not answer"):
            calls.call(["sleep", "20"], 15, "a run", beat=beat)
    else:
        assert calls.call(["sleep", "1.5"], 15, "a run", beat=beat).code == 0
