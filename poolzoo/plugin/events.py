"""Events of a run, emitted to the plugins that listen: read-only, and a plugin that raises stops nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, Final

from poolzoo.common import output, streams
from poolzoo.plugin.problems import Problem, Source, problem_of, summary

if TYPE_CHECKING:
    import pluggy

EVENTS: Final = ("poolzoo_run_started", "poolzoo_epoch_finished", "poolzoo_run_finished", "poolzoo_exported")


class Emitter:
    """Calls the plugins that listen to an event, and counts those that fail.

    Args:
        manager: pluggy's, which knows who listens to which event.
        sources: Where each registered plugin comes from, by the manager's name of it.
        problems: The first failure of each plugin at each event is appended here.
    """

    def __init__(self, manager: pluggy.PluginManager, sources: dict[str, Source], problems: list[Problem]) -> None:
        self._manager = manager
        self._sources = sources
        self._problems = problems
        self._failures: dict[tuple[Source, str], int] = {}

    def emit(self, event: str, **arguments: Any) -> None:
        """Calls each function that listens once, with copies of the arguments that it names.

        One that raises is reported at its first failure. `KeyboardInterrupt` alone is passed on.
        """
        import copy

        called = set()
        for implementation in getattr(self._manager.hook, event).get_hookimpls():
            if (key := function_key(implementation.function)) in called:
                continue
            called.add(key)
            copies = copy.deepcopy({name: arguments[name] for name in implementation.argnames})
            try:
                with redirect_stdout(streams.Foreign()):
                    implementation.function(**copies)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self._count(self._sources[implementation.plugin_name], event, error)

    def report_failures(self) -> None:
        """Warns of each plugin that failed at an event more than once, with the number, and starts counting anew."""
        for (source, event), times in self._failures.items():
            if times > 1:
                output.warn(f"plugin {source.dist} failed at {event} {times:,} times in all")
        self._failures.clear()

    def _count(self, source: Source, event: str, error: BaseException) -> None:
        self._failures[source, event] = self._failures.get((source, event), 0) + 1
        if not any((p.source, p.stage) == (source, event) for p in self._problems):
            problem = problem_of(source.dist, source, event, error, "the run goes on without it")
            self._problems.append(problem)
            output.warn(*summary([problem])[0])


def function_key(function: Callable[..., Any]) -> tuple[int, int]:
    """The same for a function, or an object's method, however often it was looked up."""
    return id(getattr(function, "__func__", function)), id(getattr(function, "__self__", None))
