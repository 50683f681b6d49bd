"""Runtimes as plugins: judged in processes of their own, with what they change, how they lie, and how they end."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from support.processes import read_pipe
from support.runtimes import HOSTILE, fake_runtime, find_few

from poolzoo.artifacts import manifest
from poolzoo.common import files, timing
from poolzoo.plugin import loader, spec
from poolzoo.runtime import availability, cases, limits, measurements, process, process_tree, runtimes

BUNDLE = Path(__file__).parents[1] / "data" / "digits_bundle"


@pytest.fixture
def bundle(tmp_path):
    """A copy, in which `verify` may keep what it finds."""
    return shutil.copytree(BUNDLE, tmp_path / "bundle")


@pytest.fixture
def few_runtimes(monkeypatch):
    find_few(monkeypatch)


def check(path, *names, **options):
    loader.load_plugins(path, installed=False)
    options = {"threads": 1, "measure_speed": False, **options}
    return runtimes.check_runtimes(BUNDLE, names or ["fake"], **options).results[0]


def test_an_honest_runtime_agrees_in_one_session(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "MOST_ROUNDS", timing.LEAST_ROUNDS)
    found = check(fake_runtime(tmp_path / "honest.py"), measure_speed=True)
    assert (found.status, found.detail.startswith("closest to its limit")) == ("agrees", True)
    ids = [one.id for one in found.judgment.checks]
    count = len(np.load(BUNDLE / "golden.npz")["images"])
    assert ids[:4] == [f"golden-batch-{size}" for size in (1, 2, 7, count)]
    assert ids[4:] == ["golden-batch-64", "repeat", "synthetic", "synthetic-batch-3-reversed", "softmax", "input"]
    assert [row.batch for row in found.speed] == [1, 32]
    assert all(row.measurement.speedup["median"] > 0 for row in found.speed)
    assert found.startup_ms > 0
    assert found.bytes == (BUNDLE / "model.onnx").stat().st_size


SLOW = ("answers with one array", "says no time")  # the rest of the protocol, which honest code writes
EXPECTED = {
    "answers with one array": ("wrong", "answers no logits and probabilities"),
    "says no time": ("wrong", "took -1 milliseconds, as its process says"),
    "constant": ("wrong", "golden-batch-1"),
    "swapped classes": ("wrong", "golden-batch-1"),
    "swapped at the batch of predict": ("wrong", "golden-batch-64"),
    "golden answers by lookup": ("wrong", "synthetic: "),
    "NaN on dark images": ("wrong", "NaN or infinity on black"),
    "wrong at larger batches": ("wrong", "golden-batch-2"),
    "logits for probabilities": ("wrong", "golden-batch-1"),
    "another answer the second time": ("wrong", "repeat"),
    "changes the images": ("wrong", "changes the images"),
    "one class less": ("wrong", "gives 9 classes, the bundle has 10"),
    "one image less": ("wrong", "gives logits [0, 10]"),
    "integers": ("wrong", "gives int64[1, 10], not float[N, K]"),
    "no pair": ("wrong", "not a pair of logits and probabilities"),
    "no session": ("refused", "open gives NoneType"),
    "raises": ("refused", r"KeyError: 'Mul of \x1b[31m an unknown kind'"),
    "sleeps": ("refused", "does not answer within 2 seconds while opening"),
    "exits": ("refused", "ended with exit code 7 while running a batch of 1"),
    "calls sys.exit": ("refused", "it calls sys.exit(0)"),
    "crashes": ("refused", "ended with SIGSEGV while opening"),
    "writes to every descriptor": ("wrong", "writes something else to the pipe"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in HOSTILE]
)
def test_a_runtime_that_lies_or_ends_is_caught(tmp_path, name):
    body = HOSTILE[name].format(golden=BUNDLE / "golden.npz") if "{golden}" in HOSTILE[name] else HOSTILE[name]
    found = check(fake_runtime(tmp_path / "hostile.py", body), timeout=2.0 if name == "sleeps" else None)
    status, words = EXPECTED[name]
    assert (found.status, words in found.detail) == (status, True), found.detail
    assert found.detail.isprintable()


def test_what_a_runtime_prints_ends_in_its_error_alone(tmp_path, poolzoo, bundle):
    body = (
        "def open_session(bundle, **settings):\n"
        "    for _ in range(30):\n        print('x' * 99_999)\n"
        "    os.system('echo a child prints')\n"
        "    raise ValueError('no such operator')\n"
    )
    plugin = fake_runtime(tmp_path / "loud.py", body)
    outcome = poolzoo("verify", bundle, "--runtime", "fake", "--plugin", plugin, "--json")
    assert outcome.code == 1
    (row,) = outcome.json["runtimes"]
    assert (row["status"], "no such operator; it printed:" in row["detail"]) == ("refused", True)
    assert row["detail"].endswith("a child prints")
    assert len(outcome.err) < 4000
    assert outcome.out.count("\n") == 1


def test_a_runtime_that_holds_too_much_memory_is_ended(tmp_path):
    if not Path("/proc/self/statm").exists():
        pytest.skip("only Linux tells the memory of a process")
    body = "def open_session(bundle, **settings):\n    hoard = bytearray(300 << 20)\n    time.sleep(1000)\n"
    loader.load_plugins(fake_runtime(tmp_path / "hoard.py", body), installed=False)
    entry = loader.catalog().runtime("fake")
    allowed = limits.Limits(seconds=60, memory=200 << 20)
    with (
        process.RuntimeProcess(entry, threads=1, limits=allowed) as session,
        pytest.raises(process.RuntimeFailed, match="are allowed"),
    ):
        session.open(BUNDLE)


DETACHED = """
def open_session(bundle, **settings):
    session = honest(bundle, **settings)
    import subprocess
    code = (
        "import os, time; os.fork() and os._exit(0); os.setsid()\\n"
        "print(os.getpid(), flush=True); time.sleep(1000)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    open({marker!r}, "w").write(f"{{os.getpid()}} {{int(child.stdout.readline())}}")
    def run(images):
        {action}
        return session(images)
    return run
"""


STOPS_ITS_SUPERVISOR = (
    "assert b'supervisor' in open(f'/proc/{os.getppid()}/cmdline', 'rb').read(); "
    "os.kill(os.getppid(), 19); time.sleep(99)"
)


def has_ended(pid):
    return limits.resident_memory(pid) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps orphans together")
@pytest.mark.parametrize(
    ("action", "error"),
    [
        ("pass", None),
        ("os._exit(7)", "exit code 7"),
        pytest.param(STOPS_ITS_SUPERVISOR, "20 s", marks=pytest.mark.slow),
    ],
)
def test_processes_that_leave_the_session_end_with_it(tmp_path, action, error):
    marker = tmp_path / "pids"
    body = DETACHED.format(marker=str(marker), action=action)
    loader.load_plugins(fake_runtime(tmp_path / "parent.py", body), installed=False)
    limit = limits.Limits(seconds=20 if error == "20 s" else 60)  # it opens within them on a busy machine too
    with process.RuntimeProcess(loader.catalog().runtime("fake"), threads=1, limits=limit) as session:
        session.open(BUNDLE)
        pids = [int(one) for one in marker.read_text().split()]
        assert not any(map(has_ended, pids))
        if error is None:
            session.run(np.load(BUNDLE / "golden.npz")["images"][:1])
        else:
            with pytest.raises(process.RuntimeFailed, match=error):
                session.run(np.load(BUNDLE / "golden.npz")["images"][:1])
    assert all(map(has_ended, pids))


def test_descendants_are_found_without_proc(tmp_path):
    if shutil.which("ps") is None:
        pytest.skip("ps is not installed")
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        parent.stdout.readline()
        found = process_tree.descendants(os.getpid(), tmp_path)
        assert parent.pid in found
        (child,) = process_tree.descendants(parent.pid, tmp_path)
        assert process_tree.descendants(parent.pid) == [child]
        process_tree.end_descendants(parent.pid)


def test_a_session_gets_pieces_of_its_fixed_batch(tmp_path):
    body = (
        "def open_session(bundle, **settings):\n"
        "    session = honest(bundle, **settings)\n"
        "    def run(images):\n        assert len(images) == 4\n        return session(images)\n"
        "    return run\n"
    )
    form = "form=GraphForm(input='float', batch=4, opset=17)"
    found = check(fake_runtime(tmp_path / "fixed.py", body, form))
    assert found.status == "agrees", found.detail
    assert found.changes[0] == "float input"
    assert found.changes[1].startswith("batch 4")
    assert found.changes[2] == "opset 17 instead of 18"


def test_a_form_that_no_graph_takes_is_refused_by_name(tmp_path):
    found = check(fake_runtime(tmp_path / "old.py", more="form=GraphForm(opset=7)"))
    assert found.status == "refused"
    assert "cannot be converted from opset 18 to 7" in found.detail


def test_a_runtime_reads_what_its_convert_wrote(tmp_path):
    body = (
        "def convert(bundle, out):\n"
        "    assert sorted(path.name for path in bundle.iterdir()) == ['config.json', 'model.onnx']\n"
        "    (out / 'weights.bin').write_bytes((bundle / 'model.onnx').read_bytes())\n"
        "    (bundle / 'model.onnx').write_bytes(b'overwritten')\n"
        "def open_session(bundle, **settings):\n"
        "    (bundle / 'model.onnx').write_bytes((bundle / 'weights.bin').read_bytes())\n"
        "    return honest(bundle, **settings)\n"
    )
    found = check(fake_runtime(tmp_path / "own.py", body, "convert=convert"))
    assert (found.status, found.changes) == ("agrees", ("converted",)), found.detail
    assert manifest.differences(BUNDLE) == []


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("(out / 'elsewhere').symlink_to('/')", "elsewhere, which is no plain file"),
        ("(out / 'nothing').symlink_to('nowhere')", "nothing, which is no plain file"),
        ("(out / 'folder').mkdir(); (out / 'folder/loop').symlink_to('..')", "loop, which is no plain file"),
        ("os.mkfifo(out / 'pipe')", "pipe, which is no plain file"),
        ("open(os.fsencode(out) + b'/\\xff.bin', 'w').close()", r"a file with an odd name: \udcff.bin"),
        ("(out / 'two\\nlines').touch()", "a file with an odd name: two lines"),
        ("out.rmdir(); out.symlink_to('/')", "converted, which is no plain file"),
        pytest.param("os.truncate(out / 'model', 9 << 30)", "model of 9.7 GB", marks=pytest.mark.slow),
    ],
)
def test_what_is_no_plain_file_is_refused(tmp_path, poolzoo, statement, why, bundle):
    body = (
        f"def convert(bundle, out):\n    (out / 'model').write_bytes(b'x')\n    {statement}\n"
        "def open_session(bundle, **settings): return None\n"
    )
    if "rmdir" in statement:
        body = body.replace("(out / 'model').write_bytes(b'x')", "pass")
    plugin = fake_runtime(tmp_path / "odd.py", body, more="convert=convert")
    outcome = poolzoo("verify", bundle, "--runtime", "fake", "--plugin", plugin, "--no-bench")
    errors = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert (outcome.code, errors) == (1, [f"error: runtime fake refuses the bundle: converts the graph to {why}"])


@pytest.mark.parametrize("name", ["swapped classes", "logits for probabilities", "one class less"])
def test_predict_uses_no_runtime_that_is_wrong(tmp_path, poolzoo, name):
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image)
    plugin = fake_runtime(tmp_path / "fake.py", HOSTILE[name])
    outcome = poolzoo("predict", BUNDLE, image, "--runtime", "fake", "--plugin", plugin)
    assert (outcome.code, outcome.out.count("\n")) == (1, 0)
    assert outcome.err.startswith("error: runtime fake is wrong for this bundle: ")


@pytest.mark.slow
def test_predict_believes_no_probabilities_that_are_none(tmp_path, poolzoo):
    """A runtime that is right on what the bundle stores may be wrong on an image of the user."""
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(tmp_path / "image.png")
    body = "open_session = changed(lambda x, a, b: (a, a if (x == 7).all() else b))\n"
    plugin = fake_runtime(tmp_path / "fake.py", body)
    outcome = poolzoo("predict", BUNDLE, tmp_path / "image.png", "--runtime", "fake", "--plugin", plugin)
    assert outcome.code == 1
    assert outcome.err.startswith("error: runtime fake gives probabilities that are "), outcome.err
    assert "hint: " in outcome.err


def test_a_convert_that_writes_nothing_is_refused(tmp_path):
    found = check(fake_runtime(tmp_path / "idle.py", more="convert=lambda bundle, out: None"))
    assert (found.status, found.detail) == ("refused", "converts the graph to no file")


def test_absent_runtimes_are_listed_and_cost_nothing(tmp_path, poolzoo, few_runtimes, bundle):
    plugin = fake_runtime(tmp_path / "absent.py", more="modules=('no_such_module',), install='pip install nothing'")
    outcome = poolzoo("verify", bundle, "--runtime", "all", "--plugin", plugin, "--no-bench", "--json")
    rows = {row["runtime"]: row for row in outcome.json["runtimes"]}
    assert outcome.code == 0
    assert (rows["fake"]["status"], rows["fake"]["detail"]) == ("not installed", "pip install nothing")
    assert rows["onnxruntime"]["status"] == "agrees"
    named = poolzoo("verify", bundle, "--runtime", "fake", "--plugin", plugin)
    assert (named.code, named.out) == (4, "")
    assert "hint: pip install nothing" in named.err
    unknown = poolzoo("verify", bundle, "--runtime", "onnxruntme")
    assert (unknown.code, "did you mean onnxruntime" in unknown.err) == (2, True)


@pytest.mark.parametrize(
    ("names", "name", "code"), [("fake", "raises", 1), ("all", "raises", 0), ("all", "constant", 1)]
)
def test_the_exit_code_tells_wrong_from_refused(tmp_path, poolzoo, few_runtimes, names, name, code, bundle):
    plugin = fake_runtime(tmp_path / "hostile.py", HOSTILE[name])
    outcome = poolzoo("verify", bundle, "--runtime", names, "--plugin", plugin, "--no-bench")
    assert outcome.code == code
    assert ("error: runtime fake" in outcome.err) == bool(code)


def test_lower_arithmetic_has_a_tolerance_of_its_own(tmp_path):
    body = (
        "def open_session(bundle, *, precision, **settings):\n"
        "    session = honest(bundle, precision=precision, **settings)\n"
        "    def run(images):\n"
        "        logits = session(images)[0]\n"
        "        logits = logits if precision == 'fp32' else logits * 1.01\n"
        "        powers = np.exp(logits - logits.max(1, keepdims=True))\n"
        "        return logits, powers / powers.sum(1, keepdims=True)\n"
        "    return run\n"
    )
    plugin = fake_runtime(tmp_path / "low.py", body)
    assert check(plugin).status == "agrees"
    found = check(plugin, precision="auto")
    assert found.status == "agrees", found.detail
    assert found.judgment.allowed > 0.1
    wrong = fake_runtime(tmp_path / "wrong.py", HOSTILE["swapped classes"])
    assert check(wrong, precision="auto").status == "wrong"


def test_synthetic_cases_are_not_among_the_stored_images():
    made = cases.make_cases(BUNDLE)
    stored = {image.tobytes() for image in np.load(BUNDLE / "golden.npz")["images"]}
    assert not stored & {image.tobytes() for image in made.synthetic.images}
    assert len({image.tobytes() for image in made.synthetic.images}) >= 20
    assert (made.synthetic.allowed > 0).all()
    assert made.golden.names[:2] == ("black", "white")


@pytest.mark.slow
def test_bench_measures_a_runtime_beside_onnxruntime(tmp_path, poolzoo, monkeypatch):
    monkeypatch.setattr("poolzoo.runtime.speed.SECONDS", 0)
    arguments = ("--batch", "2", "--threads", "1", "--json")
    plugin = fake_runtime(tmp_path / "honest.py")
    result = poolzoo("bench", BUNDLE, "--runtime", "fake,onnxruntime", "--plugin", plugin, *arguments).json
    assert {row["runtime"]: "speedup" in row for row in result["results"]} == {"fake": True, "onnxruntime": False}
    liar = fake_runtime(tmp_path / "liar.py", HOSTILE["golden answers by lookup"].format(golden=BUNDLE / "golden.npz"))
    outcome = poolzoo("bench", BUNDLE, "--runtime", "fake,onnxruntime", "--plugin", liar, *arguments)
    assert outcome.code == 1
    assert {row["runtime"] for row in outcome.json["results"]} == {"onnxruntime"}
    assert "fake is not measured: synthetic" in outcome.err


def bundle_that_names(path, runtime):
    bundle = Path(shutil.copytree(BUNDLE, path))
    config = json.loads((bundle / "config.json").read_text())
    config["export"]["runtime"] = runtime
    files.write_json(bundle / "config.json", config)
    manifest.write_manifest(bundle, "bundle")
    return bundle


def test_predict_uses_the_runtime_that_the_bundle_names(tmp_path, poolzoo):
    used = tmp_path / "used"
    body = (
        "def open_session(bundle, **settings):\n"
        f"    open({str(used)!r}, 'a').write('x')\n"
        "    return honest(bundle, **settings)\n"
    )
    plugin = fake_runtime(tmp_path / "fake.py", body)
    bundle = bundle_that_names(tmp_path / "bundle", "fake")
    image = tmp_path / "image.png"
    Image.fromarray(np.load(BUNDLE / "golden.npz")["images"][9]).save(image)
    expected = poolzoo("predict", BUNDLE, image, "--json").json
    assert poolzoo("predict", bundle, image, "--json", "--plugin", plugin).json == expected
    assert used.read_text() == "x"
    missing = poolzoo("predict", bundle, image, "--json")
    assert missing.json == expected
    assert "ONNX Runtime is used: the bundle names fake" in missing.err
    named = poolzoo("predict", BUNDLE, image, "--json", "--runtime", "fake", "--plugin", plugin)
    assert (named.json, used.read_text()) == (expected, "xx")
    assert poolzoo("predict", BUNDLE, image, "--runtime", "fake").code == 2


def test_predict_says_why_its_runtime_failed(tmp_path, poolzoo):
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image)
    plugin = fake_runtime(tmp_path / "fake.py", HOSTILE["exits"])
    outcome = poolzoo("predict", BUNDLE, image, "--runtime", "fake", "--plugin", plugin)
    assert outcome.code == 1
    assert "error: runtime fake ended with exit code 7 while running a batch of" in outcome.err


@pytest.fixture
def sleeper(tmp_path, bundle):
    """A command whose runtime never opens, and the process of that runtime."""
    pipe = tmp_path / "pid"
    os.mkfifo(pipe)
    body = (
        "def open_session(bundle, **settings):\n"
        f"    with open({str(pipe)!r}, 'w') as file:\n        file.write(str(os.getpid()))\n"
        "    time.sleep(1000)\n"
    )
    plugin = fake_runtime(tmp_path / "sleeper.py", body)
    command = [sys.executable, "-m", "poolzoo", "verify", bundle, "--runtime", "fake", "--plugin", plugin, "--no-bench"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        yield running, int(read_pipe(pipe))


SLOW_WITH_A_SLOW_CLOCK = """
def open_session(bundle, **settings):
    session = honest(bundle, **settings)
    real, opened = time.perf_counter, time.perf_counter()
    time.perf_counter = lambda: opened + (real() - opened) / 1e6
    def run(images):
        for _ in range(10):
            np.linalg.svd(np.ones((100, 100)))
        return session(images)
    return run
"""


@pytest.mark.slow
def test_the_clock_of_the_host_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "MOST_ROUNDS", timing.LEAST_ROUNDS)
    plugin = fake_runtime(tmp_path / "fake.py", SLOW_WITH_A_SLOW_CLOCK)
    found = check(plugin, measure_speed=True)
    assert (found.status, len(found.remarks)) == ("agrees", 1), found.detail
    assert found.remarks[0].startswith("its own clock says 0.00 ms for a batch of 1, the host's ")
    assert all(row.measurement.speedup["median"] < 1 for row in found.speed)
    assert runtimes.least_speedup(found) < 1


def test_a_runtime_faster_by_its_clock_alone_is_not_faster():
    row = measurements.Measurement(
        runtime="fake",
        threads=1,
        median_ms=1,
        min_ms=1,
        p90_ms=1,
        p99_ms=1,
        rounds=5,
        speedup={"median": 9.0, "p10": 9.0, "p90": 9.0},
    )
    speed = (measurements.BenchRow(row, 1),)
    found = runtimes.RuntimeResult(
        runtime="fake", version="", status="agrees", detail="", speed=speed, host_speedup=0.7
    )
    assert runtimes.least_speedup(found) == 0.7
    assert runtimes.least_speedup(dataclasses.replace(found, host_speedup=1.4)) == 9.0


def test_no_image_that_is_timed_was_seen_before(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "MOST_ROUNDS", timing.LEAST_ROUNDS)
    body = (
        "seen = set()\n"
        "def remember(x, a, b):\n"
        "    images = {image.tobytes() for image in x}\n"
        "    if len(x) == 32:\n        assert not images & seen and len(images) == 32\n"
        "    seen.update(images)\n"
        "    return a, b\n"
        "open_session = changed(remember)\n"
    )
    found = check(fake_runtime(tmp_path / "fake.py", body), measure_speed=True)
    assert (found.status, [row.batch for row in found.speed]) == ("agrees", [1, 32]), found.detail


CLOSING = """
class Session:
    def __init__(self, run):
        self.run = run
    def __call__(self, images):
        return self.run(images)
    def close(self):
        {action}
def open_session(bundle, **settings):
    return Session(honest(bundle, **settings))
"""


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("raise ValueError('it is stuck')", "fails while closing: ValueError: it is stuck"),
        ("time.sleep(1000)", "does not answer within 5 seconds while closing"),
        ("os._exit(3)", "ended with exit code 3 while closing"),
    ],
)
def test_a_session_that_does_not_close_is_remarked(tmp_path, poolzoo, action, words, bundle):
    plugin = fake_runtime(tmp_path / "fake.py", CLOSING.format(action=action))
    outcome = poolzoo("verify", bundle, "--runtime", "fake", "--plugin", plugin, "--no-bench", "--json")
    (row,) = outcome.json["runtimes"]
    assert (outcome.code, row["status"], row["remarks"]) == (0, "agrees", [words])


@pytest.mark.slow
def test_the_user_sees_that_a_session_does_not_close(tmp_path, poolzoo, monkeypatch, bundle):
    monkeypatch.setattr("poolzoo.runtime.speed.SECONDS", 0)
    plugin = fake_runtime(tmp_path / "fake.py", CLOSING.format(action="raise ValueError('it is stuck')"))
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image)
    words = "runtime fake: fails while closing: ValueError: it is stuck"
    options = ("--runtime", "fake", "--plugin", plugin)
    for command in (
        ("verify", bundle, "--no-bench"),
        ("predict", BUNDLE, image),
        ("bench", BUNDLE, "--batch", "1", "--threads", "1"),
    ):
        outcome = poolzoo(*command, *options)
        assert (outcome.code, outcome.err.count(words)) == (0, 1), command


def test_outputs_in_another_byte_order_are_taken(tmp_path):
    body = "open_session = changed(lambda x, a, b: (a.astype('>f4'), b.astype('>f8')))"
    found = check(fake_runtime(tmp_path / "fake.py", body))
    assert found.status == "agrees", found.detail


@pytest.mark.slow
def test_a_plugins_runtime_may_be_named_like_a_builtin(tmp_path, poolzoo, monkeypatch):
    monkeypatch.setattr("poolzoo.runtime.speed.SECONDS", 0)
    plugin = tmp_path / "two.py"
    text = fake_runtime(plugin, HOSTILE["swapped classes"]).read_text()
    plugin.write_text(text.replace('name="fake"', 'name="onnxruntime"'))
    options = ("--runtime", "two:onnxruntime,onnxruntime", "--plugin", plugin, "--json")
    outcome = poolzoo("verify", BUNDLE, "--no-bench", *options)
    rows = {row["runtime"]: row["status"] for row in outcome.json["runtimes"]}
    assert rows == {"two:onnxruntime": "wrong", "onnxruntime": "agrees"}
    assert (outcome.code, "error: runtime two:onnxruntime is WRONG" in outcome.err) == (1, True)
    benched = poolzoo("bench", BUNDLE, "--batch", "1", "--threads", "1", *options)
    assert {row["runtime"]: row["passed"] for row in benched.json["agreement"]} == {
        "two:onnxruntime": False,
        "onnxruntime": True,
    }
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image)
    for name, code in (("two:onnxruntime", 1), ("onnxruntime", 0)):
        found = poolzoo("predict", BUNDLE, image, "--runtime", name, "--plugin", plugin)
        assert found.code == code, name
    bundle = bundle_that_names(tmp_path / "bundle", "two:onnxruntime")
    assert poolzoo("predict", bundle, image, "--plugin", plugin).code == 1


def test_an_unlike_name_is_no_suggestion(poolzoo):
    outcome = poolzoo("verify", BUNDLE, "--runtime", "nope")
    assert (outcome.code, "did you mean" in outcome.err, "there are: " in outcome.err) == (2, False, True)


def test_ctrl_c_ends_the_process_of_a_runtime(sleeper):
    running, pid = sleeper
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert errors.splitlines()[-1] == "error: interrupted"
    assert limits.resident_memory(pid) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_stopped_runtime_ends_with_its_host(sleeper):
    running, pid = sleeper
    ended = os.pidfd_open(pid)
    os.kill(pid, signal.SIGSTOP)
    running.kill()
    found, _, _ = select.select([ended], [], [], 30)  # readable once the process has ended
    os.close(ended)
    if not found:
        os.kill(pid, signal.SIGKILL)
    assert found


def test_list_runtimes_shows_versions_and_how_to_get_the_rest(tmp_path, poolzoo):
    plugin = fake_runtime(tmp_path / "absent.py", more="modules=('no_such_module',), install='pip install nothing'")
    rows = {row["name"]: row for row in poolzoo("list", "runtimes", "--plugin", plugin, "--json").json["runtimes"]}
    assert (rows["fake"]["installed"], rows["fake"]["missing"]) == (False, ["no_such_module"])
    assert rows["onnxruntime"]["installed"]
    assert onnxruntime.__version__ in rows["onnxruntime"]["versions"].values()
    table = poolzoo("list", "runtimes", "--filter", "fake", "--plugin", plugin).out.splitlines()
    assert table[1].split("\t")[3] == "not installed: pip install nothing"
    assert "runtimes: onnxruntime, " in poolzoo("list").out


def test_modules_are_found_without_importing_their_packages(tmp_path, monkeypatch):
    package = tmp_path / "imports_nothing"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('it was imported')")
    (package / "inner.py").write_text("")
    (tmp_path / "only_a_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    names = ("imports_nothing", "imports_nothing.inner", "imports_nothing.outer", "only_a_folder", "json.decoder")
    runtime = spec.Runtime(name="x", summary="", open="a.b:c", modules=names, programs=("no-such-program",))
    missing = availability.find(runtime).missing
    assert missing == ("imports_nothing.outer", "only_a_folder", "no-such-program")
