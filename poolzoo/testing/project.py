"""A temporary project in which tests run poolzoo: the fixture `poolzoo_project` of `poolzoo.testing.plugin`."""

from __future__ import annotations

import io
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from poolzoo.common.errors import INTERRUPTED
from poolzoo.testing import child, process_state
from poolzoo.testing.command_result import CommandResult

if TYPE_CHECKING:
    import pytest

    from poolzoo.artifacts.run_report import RunReport
    from poolzoo.export.export import ExportReport

COLORS: Final = ("blue", "green", "red")  # classes of tiny data sets
SECONDS: Final = 600.0  # that a command in a process of its own may take
QUICK: Final[Mapping[str, object]] = {  # settings of `finetune` where a test does not choose others
    "data": "digits",
    "backbone": "nano/plain",
    "epochs": 1,
    "limit": 64,
    "device": "cpu",
    "threads": 1,
}


class Project:
    """A temporary project: a folder, which is the current directory, and environment variables of its own.

    The cache and the list of disabled plugins are its own, and no variable `POOLZOO_…` of the user is set. Installed
    plugins are found as usual; `setenv("POOLZOO_PLUGINS", "my-pool")` allows only the named ones. Every file that
    `write_plugin` writes is loaded by all that runs in the project.

    Attributes:
        path: The folder.
        plugins: The folder of plugin files.
    """

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = home / "project"
        self.plugins = home / "plugins"
        self._monkeypatch = monkeypatch
        for folder in (self.path, self.plugins):
            folder.mkdir()
        for name in [name for name in os.environ if name.startswith("POOLZOO_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("POOLZOO_CACHE", str(home / "cache"))
        monkeypatch.setenv("POOLZOO_CONFIG", str(home / "config"))
        monkeypatch.setenv("POOLZOO_PLUGINS_DIR", str(self.plugins))
        monkeypatch.setenv("COLUMNS", "100")  # of help and tables
        monkeypatch.chdir(self.path)

    def setenv(self, name: str, value: str) -> None:
        """Sets an environment variable until the test ends, here and in processes that are started."""
        self._monkeypatch.setenv(name, value)

    def write(self, name: str, content: str | bytes) -> Path:
        """Writes a file of the project; the indentation that all lines of a text share is removed.

        Args:
            name: Its path, relative to the project.
            content: Its content.
        """
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(textwrap.dedent(content).lstrip("\n"), encoding="utf-8")
        else:
            path.write_bytes(content)
        return path

    def write_plugin(self, name: str, source: str) -> Path:
        """Writes a plugin in one file, which is loaded by all that runs in the project from then on.

        Args:
            name: Of the plugin, such as `power_mean`: it answers to this name.
            source: Python code, indented or not.

        Raises:
            ValueError: The name is not that of a module.
        """
        if not name.isidentifier():
            raise ValueError(f"{name!r} cannot be the name of a plugin file: use letters, digits and _")
        path = self.plugins / f"{name}.py"
        path.write_text(textwrap.dedent(source).lstrip("\n"), encoding="utf-8")
        process_state.forget_plugins(self.plugins)
        return path

    def run(self, *arguments: object, in_process: bool = True, timeout: float = SECONDS) -> CommandResult:
        """Runs a command, such as `run("list", "--json")`.

        Args:
            arguments: What follows `poolzoo`, each as a text.
            in_process: Whether it runs in this process, which saves seconds of imports. Afterwards the process is
                as before. A process of its own has the module path of this one, and its output is complete.
            timeout: Seconds that a process of its own may take.

        Returns:
            How it ended; `assert_ok()` asserts that it succeeded.
        """
        words = tuple(str(argument) for argument in arguments)
        if not in_process:
            ended = child.run(
                [sys.executable, "-m", "poolzoo", *words],
                cwd=Path.cwd(),
                environment={**os.environ, "PYTHONPATH": _module_path(), "PYTHONSAFEPATH": "1"},
                timeout=timeout,
            )
            return CommandResult(words, ended.exit_code, ended.stdout, ended.stderr)
        out, err = io.StringIO(), io.StringIO()
        with process_state.kept(), redirect_stdout(out), redirect_stderr(err):
            # By its name, as whoever runs the program: the command line uses this package.
            code = import_module("poolzoo.cli").run(list(words))
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        return CommandResult(words, code, out.getvalue(), err.getvalue())

    def finetune(self, *, out: str = "", **settings: object) -> RunReport:
        """Trains in this process; without settings, one epoch of a small network on 64 digits.

        Args:
            out: The run directory; "" for a new one in `runs/`.
            settings: Settings by their names in `run.toml`, such as `pool="power-mean:p=4"` or `image_size="32"`.

        Returns:
            The result: `report.path` is the run directory, `report.test.accuracy` the accuracy.

        Raises:
            PoolzooError: The settings cannot be fulfilled, or training fails.
            TypeError: There is no such setting.
        """
        from poolzoo.train.run import finetune
        from poolzoo.train.settings import Settings
        from poolzoo.train.settings_file import with_absolute_paths

        with process_state.kept():
            chosen = with_absolute_paths(Settings(**{**QUICK, **settings}))  # type: ignore[arg-type]
            report = finetune(chosen, Path(out).absolute() if out else None)
        assert report is not None, "this is the only process of the run"
        return report

    def export(self, run: Path | str, *, out: str = "", precision: str = "fp32", input: str = "uint8") -> ExportReport:
        """Exports a run to a bundle in this process, without a measurement of speed.

        Args:
            run: The run directory.
            out: The bundle; "" for one in `exports/`.
            precision: "fp32", "fp16", "int8" or "auto".
            input: "uint8", "float" or "photo".

        Returns:
            The report: `report.bundle` is the bundle's directory, `report.parity` what was compared.

        Raises:
            PoolzooError: The network cannot be exported, or the graph does not agree with it.
        """
        from poolzoo.artifacts.run import load_run
        from poolzoo.export.export import ExportOptions, export
        from poolzoo.export.source import from_run

        place = Path(out) if out else self.path / "exports" / Path(run).name
        options = ExportOptions(precision=precision, input_kind=input)
        with process_state.kept():
            return export(from_run(load_run(Path(run))), place, options=options, threads=1, measure_speed=False)

    def image_folder(
        self, name: str = "images", *, classes: Sequence[str] = COLORS, train: int = 8, test: int = 4, size: int = 16
    ) -> str:
        """Writes tiny images in folders, whose classes differ in color; returns the value for `--data`.

        Args:
            name: The folder, relative to the project.
            classes: The names of the classes.
            train: Training images of each class.
            test: Test images of each class.
            size: Height and width in pixels.
        """
        from poolzoo.testing.sample_data import write_image_folder

        write_image_folder(self.path / name, classes=classes, train=train, test=test, size=size)
        return f"folder:{self.path / name}"

    def image_table(
        self,
        name: str = "table",
        *,
        classes: Sequence[str] = COLORS,
        train: int = 8,
        test: int = 4,
        size: int = 16,
        multilabel: bool = False,
    ) -> str:
        """Writes tiny images and a table of them; returns the value for `--data`.

        Args:
            name: The folder, relative to the project.
            classes: The names of the classes.
            train: Training images of each class.
            test: Test images of each class.
            size: Height and width in pixels.
            multilabel: Whether every second image has two labels.
        """
        from poolzoo.testing.sample_data import write_image_table

        folder = self.path / name
        table = write_image_table(folder, classes=classes, train=train, test=test, size=size, multilabel=multilabel)
        return f"csv:{table}"

    def tiny_bundle(self, name: str = "tiny-bundle") -> Path:
        """Writes a bundle of a few kilobytes, without any training: for tests of runtimes."""
        from poolzoo.testing.tiny_bundle import write_tiny_bundle

        return write_tiny_bundle(self.path / name)


def _module_path() -> str:
    """Where this process imports from, without the entries that mean the current directory."""
    return os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)
