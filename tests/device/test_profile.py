"""Device profiles: read from TOML, every mistake named."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workbench.device import probe, profile
from workbench.device.profile import Device
from workbench.device.providers import PROVIDERS
from workbench.errors import ProfileError
from workbench.quantization.core.plan import SCHEMES

HUGE = "0x" + "f" * 5000  # an int that Python will not print in decimal
VALUES = st.recursive(
    st.sampled_from(["nan", "-inf", "1e999", "1979-05-27", "07:32:00", HUGE, "-1", "1025"])
    | st.integers().map(str)
    | st.floats().map(str)
    | st.booleans().map(lambda value: str(value).lower())
    | st.sampled_from(["local", "cuda", "ssh", "loca\0l", "x" * 10_000, "avx2"]).map(json.dumps)
    | st.text().map(json.dumps),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | inner.map("{{ a = {} }}".format)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["transport", "threads", "cores", "isa", "provider", "options", "thread", '""', '"a.b"',
     "host", "port", "serial", "runner", "libraries", "limits", "tags", "class", "emulated",
     "folder", "capacity_mb", "architecture"]
)  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("devices") / "mine.toml"


def load(file, text: str) -> Device:
    file.write_text(text, encoding="utf-8")
    return profile.load(str(file))


def test_the_shipped_cpu_is_this_machine_on_one_thread():
    assert profile.load("cpu") == Device(name="cpu", isa=probe.isa())


def test_every_key_is_read(file):
    device = load(
        file,
        'transport = "local"\nthreads = 3\ncores = [0]\nisa = ["avx_vnni"]\n'
        'provider = "openvino"\noptions = { device_type = "GPU", num_streams = 2 }',
    )
    assert device == Device(
        name="mine", threads=3, cores=(0,), isa=("avx_vnni",), provider="openvino",
        options={"device_type": "GPU", "num_streams": "2"},
    )  # fmt: skip
    assert device.to_json() == {
        "name": "mine", "transport": "local", "threads": 3, "cores": [0], "isa": ["avx_vnni"],
        "provider": "openvino", "options": {"device_type": "GPU", "num_streams": "2"},
    }  # fmt: skip
    assert device.runtime == ("openvino", {"device_type": "GPU", "num_streams": "2"})


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_has_a_profile_of_its_name(provider):
    device = profile.load(provider)
    assert (device.name, device.provider, device.threads) == (provider, provider, 1)


@pytest.mark.parametrize(
    ("provider", "text"), [("cuda", "True"), ("tensorrt", "True"), ("coreml", "1")]
)
def test_true_is_written_as_the_provider_reads_it(file, provider, text):
    device = load(file, f'provider = "{provider}"\n[options]\nswitch = true')
    assert device.options == {"switch": text}


def test_an_empty_file_is_the_default_with_the_probed_isa(file):
    assert load(file, "") == Device(name="mine", isa=probe.isa())


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("thread = 1", "mine.toml: no key 'thread'", "did you mean 'threads'?"),
        ('transport = "usb"', "mine.toml: transport cannot be 'usb'", "local or ssh or adb"),
        ("threads = 0", "threads must be a whole number, 1 to 1024", ""),
        ("threads = true", "threads must be a whole number, 1 to 1024", ""),
        ("threads = 1.0", "threads must be a whole number, 1 to 1024", ""),
        ("cores = [100000]", "there is no core 100000, only", ""),
        ("cores = [-1]", "there is no core -1, only", ""),
        ("cores = 1", "cores must be a list of whole numbers, not 1", ""),
        ("cores = [true]", "cores must be a list of whole numbers, not [True]", ""),
        ("isa = [1]", "isa must be a list of texts, not [1]", ""),
        ("threads = 1025", "threads must be a whole number, 1 to 1024", ""),
        ("threads = ", "is not valid TOML", ""),
        ('provider = "cudo"', "provider cannot be 'cudo'", "did you mean 'cuda'?"),
        ("provider = 1", "provider cannot be 1", "known: coreml, cpu, cuda"),
        ('provider = "cuda"\noptions = 1', "options must be a table, not 1", ""),
        ('provider = "cuda"\n[options]\na = 1.5', "option 'a' cannot be 1.5", "texts, whole"),
        ('provider = "cuda"\n[options]\na = [1]', "option 'a' cannot be [1]", "texts, whole"),
        ("[options]\na = 1", "options are given without a provider", "one of cpu, cuda"),
    ],
)
def test_a_mistake_is_named(file, text, what, hint):
    with pytest.raises(ProfileError) as caught:
        load(file, text)
    assert what in caught.value.what
    assert hint in f"{caught.value.why} {caught.value.fix}"
    assert caught.value.exit_code == 2


def test_an_unknown_device_names_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProfileError) as caught:
        profile.load("cpus")
    assert caught.value.what == "there is no device named 'cpus'"
    assert "did you mean 'cpu'?" in caught.value.fix


@pytest.mark.parametrize(
    ("architecture", "isa", "quantization"),
    [
        ("x86", ("avx2", "avx512_vnni"), "u8s8"),
        ("x86", ("avx_vnni",), "u8s8"),
        ("x86", ("avx2",), "u8s8-reduced"),
        ("arm", ("asimddp",), "s8s8"),
        ("arm", (), "s8s8"),
    ],
)
def test_the_int8_arithmetic_follows_the_cpu(monkeypatch, architecture, isa, quantization):
    monkeypatch.setattr(probe, "architecture", lambda: architecture)
    assert Device(name="x", isa=isa).quantization == quantization


@pytest.mark.parametrize(
    ("provider", "options", "quantization"),
    [
        ("cuda", {}, "s8s8-symmetric"),
        ("tensorrt", {}, "s8s8-symmetric"),
        ("xnnpack", {}, "s8s8"),
        ("openvino", {}, "u8s8-reduced"),  # the CPU's, which here has no VNNI
        ("openvino", {"device_type": "CPU"}, "u8s8-reduced"),
        ("openvino", {"device_type": "GPU.0"}, "u8s8"),
        ("coreml", {}, "u8s8-reduced"),
        ("directml", {}, "u8s8-reduced"),
    ],
)
def test_the_int8_arithmetic_follows_the_provider(monkeypatch, provider, options, quantization):
    monkeypatch.setattr(probe, "architecture", lambda: "x86")
    device = Device(name="x", isa=("avx2",), provider=provider, options=options)
    assert device.quantization == quantization
    assert quantization in SCHEMES


@settings(max_examples=150, deadline=None)
@given(st.text() | st.lists(st.tuples(KEYS, VALUES).map(" = ".join), max_size=4).map("\n".join))
@example(f"threads = {HUGE}")
@example(f"cores = [{HUGE}]")
@example(f"cores = {HUGE}")
@example(f"transport = {HUGE}")
@example(f"transport.{'a.' * 5000}b = 1")
@example("isa = " + "[" * 5000)
@example(f'provider = "cuda"\noptions.a = {HUGE}')
@example(f"provider = {HUGE}")
def test_any_text_is_a_device_or_a_profile_error(file, text):
    try:
        device = load(file, text)
    except ProfileError as error:
        assert str(error)
    else:
        assert 1 <= device.threads <= 1024


@settings(max_examples=100, deadline=None)
@given(st.binary())
def test_any_bytes_are_a_device_or_a_profile_error(file, data):
    file.write_bytes(data)
    try:
        assert isinstance(profile.load(str(file)), Device)
    except ProfileError as error:
        assert str(error)


ADB = 'transport = "adb"\n'
SSH = 'transport = "ssh"\nhost = "pi@board"\n'


def test_every_key_of_a_device_elsewhere_is_read(file):
    (file.parent / "here.so").write_bytes(b"")
    device = load(
        file,
        SSH + 'port = 2222\nrunner = "python"\nthreads = 4\ncores = [4, 5]\narchitecture = "arm"\n'
        'isa = ["asimddp"]\nfolder = "/tmp/wb"\ncapacity_mb = 50\ntags = ["a"]\nclass = "board"\n'
        "emulated = true\n[libraries]\n"
        'litert = { push = "here.so", sha256 = "' + "AB" * 32 + '" }\n'
        'python = { path = "/opt/python3" }\n'
        "[limits]\ncool_down = 1\ntemperature = 40\nbattery = 20\ntimeout = 9\nwait = 3\n"
        "retries = 0",
    )
    assert device.remote
    assert (device.host, device.port, device.runner) == ("pi@board", 2222, "python")
    assert device.cores == (4, 5)
    assert (device.architecture, device.quantization) == ("arm", "s8s8")
    assert device.libraries["litert"] == profile.Library(
        path=str(file.parent / "here.so"), pushed=True, sha256="ab" * 32
    )
    assert device.libraries["python"] == profile.Library(path="/opt/python3", pushed=False)
    assert device.limits == profile.Limits(
        cool_down=1, temperature=40, battery=20, timeout=9, wait=3, retries=0
    )
    assert (device.tags, device.group, device.emulated) == (("a",), "board", True)
    assert device.address == "ssh pi@board port 2222"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('transport = "ssh"', ["no host", "as you type it after ssh"]),
        ('host = "x"', ["host is given, and transport is local", "ssh"]),
        (SSH + 'serial = "1"', ["serial is given", "adb"]),
        (SSH + "port = 0", ["port must be a whole number, 1 to 65535"]),
        (ADB + 'provider = "cuda"', ["provider cuda with runner native", "xnnpack"]),
        (ADB + "[libraries]\nlitert = {}", ["litert needs one of path and push"]),
        (ADB + '[libraries]\nlitert = { path = "a", push = "b" }', ["one of path and push"]),
        (ADB + '[libraries]\nlitert = { path = "a", sha256 = "1" }', ["64 hexadecimal"]),
        (ADB + '[libraries]\nliteert = { path = "a" }', ["libraries.liteert", "litert"]),
        (ADB + "[limits]\ncooldown = 1", ["limits.cooldown", "cool_down"]),
        (ADB + "[limits]\nbattery = 101", ["limits.battery must be a number, 0 to 100"]),
        (ADB + "[limits]\ntimeout = nan", ["limits.timeout"]),
        (ADB + 'runner = "benchmark_model"', ["no libraries.benchmark_model", "push"]),
        (ADB + '[libraries]\nbenchmark_model = { path = "/x" }', ["has no sha256", "sha256sum"]),
        (ADB + 'emulated = "yes"', ["emulated must be true or false"]),
        ('runner = "jvm"', ["runner cannot be 'jvm'", "python or native"]),
    ],
)
def test_a_mistake_of_a_device_elsewhere_is_named(file, text, words):
    with pytest.raises(ProfileError) as caught:
        load(file, text)
    for word in words:
        assert word in str(caught.value)


def test_devices_are_told_apart_by_address_and_not_by_name():
    here, native = profile.load("cpu"), profile.load("cpu-native")
    assert here.lock == native.lock
    one = Device(name="a", transport="adb", serial="1")
    assert one.lock == Device(name="b", transport="adb", serial="1").lock
    assert one.lock != Device(name="a", transport="adb", serial="2").lock
    assert (here.remote, native.remote, one.remote) == (False, True, True)


def test_the_examples_are_read():
    for name in ("android", "raspberry-pi"):
        assert profile.load(name).tags == ("example",)
