"""What is typed: poolings with options, lists of them, sources of data, and the values of options and variables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from unittest import mock

from fuzz import odd
from fuzz.harness import Disagreement, Target
from poolzoo.cli import cli
from poolzoo.cli.completion import Completer
from poolzoo.common import streams
from poolzoo.common.errors import UsageError
from poolzoo.common.variables import whole_number
from poolzoo.compare import grid
from poolzoo.data import disk, sizes, source, unreadable
from poolzoo.data.augment import options
from poolzoo.metrics.abstention import Target as AbstainAt
from poolzoo.plugin import disabled, grammar, loader
from poolzoo.plugin.spec import Pooling
from poolzoo.train.step_plan import StepPlan, parse_duration, show_duration

SPECS = ("avg", "gem:p=4", "gem:p=4,learnable=false", "poolzoo:gem:p=3.5", "max", "lp:p=2", "topk:k=4", "rmac")
LISTS = ("avg,max", "gem:p=2|3,avg", "all", "avg,gem:p=2|3|4,learnable=true|false", "max,avg")
DATA = (
    "digits",
    "cifar10",
    "folder:photos",
    "csv:table.csv",
    "hf:owner/name",
    "shards:x-{0..9}.tar",
    "parquet:a.parquet",
)

LINES = (
    "poolzoo finetune --pool ge",
    "poolzoo finetune --data folder:",
    "poolzoo export run --precision ",
    "poolzoo compare --pools avg,gem:p=3,",
    "poolzoo predict --image-size=",
    "poolzoo ver",
)


def _typed(content: bytes) -> str:
    """Bytes as an argument of a command holds them."""
    return content.decode("utf-8", "surrogateescape")


def _mutate(rng: Random, seeds: Sequence[bytes]) -> bytes:
    content = rng.choice(seeds)
    if rng.random() < 0.2:
        return odd.damaged(rng, content, seeds)
    return odd.text(rng, _typed(content)).encode("utf-8", "surrogatepass")[:100_000]


def _target(name: str, texts: Sequence[str], read: Callable[[str], object], share: float = 1.0) -> Target:
    return Target(name, [text.encode() for text in texts], _mutate, lambda content: read(_typed(content)), share)


def _value(read: Callable[[str], object]) -> Callable[[str], object]:
    """A parser whose ValueError the settings turn into their own error."""

    def guarded(text: str) -> object:
        try:
            return read(text)
        except ValueError as error:
            raise UsageError(f"{text!r:.60} is no value: {error}") from error

    return guarded


def _spec(text: str) -> object:
    found = grammar.parse_spec(text)
    written = ":".join(filter(None, [found.dist, found.name]))
    if found.options:
        written += ":" + ",".join(f"{key}={value}" for key, value in found.options.items())
    if grammar.parse_spec(written)[1:] != found[1:]:
        raise Disagreement(f"{text!r} is read as {found}, and {written!r} is not")
    return loader.catalog().pooling(text, "global")


def _list(text: str) -> object:
    found = grid.specs(text, "global")
    return [grid.identity(one) for one in found]


def _variants(text: str) -> object:
    found = grid.variants(text, "none", "nano/plain")
    if len({one.key for one in found}) != len(found):
        raise Disagreement(f"two variants of {text!r} have one key")
    return found


def _duration(text: str) -> object:
    seconds = parse_duration(text)
    if seconds >= 1 and abs(parse_duration(show_duration(seconds)) - seconds) > max(0.5, 1e-9 * seconds):
        raise Disagreement(f"{text!r} is {seconds} seconds, and shown as {show_duration(seconds)}")
    return seconds


def _size(text: str) -> object:
    found = sizes.parse(text)
    if sizes.parse(sizes.plain(found)) != found:
        raise Disagreement(f"{text!r} is read as {found}")
    return found


def _steps(text: str) -> object:
    plan = StepPlan.parse(text)
    if StepPlan.parse(str(plan)) != plan:
        raise Disagreement(f"{text!r} is read as {plan}")
    return plan


def _policy(text: str) -> object:
    found = options.parse_policy(text)
    if found is not None and options.parse_policy(str(found)) != found:
        raise Disagreement(f"{text!r} is read as {found}")
    return found


def _abstain(text: str) -> object:
    found = AbstainAt.parse(text)
    if not 0 < found.value < 1:
        raise Disagreement(f"{text!r} is read as {found}")
    return found


def _variable(name: str, read: Callable[[], object]) -> Callable[[str], object]:
    """A reader of an environment variable."""

    def set_and_read(text: str) -> object:
        if "\0" in text:
            return None  # no environment can hold it
        before = os.environ.get(name)
        os.environ[name] = text
        try:
            return read()
        finally:
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before

    return set_and_read


def _completed(line: str) -> object:
    shells = {shell: Completer(cli, shell, line, ":=").complete() for shell in ("bash", "zsh", "fish")}
    for shell, answer in shells.items():
        if not answer.replace("\n", "").replace("\t", "").isprintable():
            raise Disagreement(f"{shell} is given a character that a terminal obeys")
    return shells


def _columns() -> object:
    with mock.patch.object(streams, "stdout_is_terminal", return_value=True):
        return streams.data_columns()


def targets(folder: Path) -> Iterator[Target]:
    os.chdir(folder)
    (folder / "plugins").mkdir()
    local = [one.item.name for one in loader.catalog().select(Pooling) if one.item.kind == "local"]
    yield _target("option", SPECS, _spec)
    yield _target("pool-list", LISTS, _list)
    yield _target("variants", LISTS, _variants)
    yield _target("local-pool", local, lambda text: loader.catalog().pooling(text, "local"))
    yield _target("backbone", ("nano/plain", "nano/resnet", "resnet18", "timm/resnet18"), _backbone, 0.1)
    yield _target("runtime", ("onnxruntime", "openvino", "tract"), lambda text: loader.catalog().runtime(text))
    yield _target("data", DATA, _data, 0.3)
    yield _target("image-size", ("64", "64x208", "224"), _value(_size))
    yield _target("duration", ("90s", "25m", "1h30m", "0.5s"), _value(_duration))
    yield _target("steps", ("1240", "1240,400:1100"), _value(_steps))
    yield _target("policy", ("none", "trivial", "rand", "rand:2,9"), _value(_policy))
    yield _target("crop-scale", ("none", "0.08,1"), _value(options.parse_crop_scale))
    yield _target("abstain-at", ("accuracy=0.99", "coverage=0.8"), _abstain)
    yield _target("skip-broken", ("10", "all"), unreadable.plain)
    yield _target("cache-limit", ("20", "0", "1e3"), _variable("POOLZOO_CACHE_LIMIT", disk.limit))
    yield _target("whole-number-variable", ("0", "3"), _variable("LOCAL_RANK", lambda: whole_number("LOCAL_RANK", 0)))
    yield _target("columns-variable", ("80", "0"), _variable("COLUMNS", _columns), 0.3)
    yield _target("cache-variable", ("cache", "~/x"), _variable("POOLZOO_CACHE", source.cache_dir), 0.3)
    yield _target("config-variable", ("config", ""), _variable("POOLZOO_CONFIG", disabled.read), 0.3)
    yield _target("folder-variable", ("plugins", ""), _variable("POOLZOO_PLUGINS_DIR", loader.candidates), 0.1)
    yield _target("completion", LINES, _completed, 0.3)
    yield _target("plugins-variable", ("a,b", ""), _variable("POOLZOO_PLUGINS", loader.candidates), 0.1)


def _backbone(text: str) -> object:
    return loader.catalog().backbone(text)


def _data(text: str) -> object:
    if text.startswith("hf:") or text.partition(":")[0] in ("digits", "cifar10", "cifar100", "mnist", "fashion-mnist"):
        entry = loader.catalog().source(text)
        return entry or loader.catalog().dataset(text)
    return source.open_dataset(text)
