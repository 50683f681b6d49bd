"""What the metadata of a plugin's wheel must say, as checks."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import PurePosixPath

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version

import poolzoo
from poolzoo.testing.base import Checks
from poolzoo.testing.release.built import Built
from poolzoo.testing.release.outcome import Skipped

BOUNDED = (">=", ">", "~=", "==", "===")
checks = Checks[Built]()


@checks.promise("use letters, digits and hyphens, such as my-pool")
def name_is_valid(built: Built) -> str:
    """The name is one that an index takes, and not that of poolzoo itself."""
    try:
        name = canonicalize_name(built.name, validate=True)
    except InvalidName:
        raise AssertionError(f"the name is {built.name!r}") from None
    assert name != "poolzoo", "the name is that of poolzoo itself"
    return built.name


@checks.promise('give project.version a number such as "0.1.0"')
def version_is_valid(built: Built) -> str:
    """The version follows PEP 440, and has no local part, which an index refuses."""
    try:
        version = Version(built.version)
    except InvalidVersion:
        raise AssertionError(f"the version is {built.version!r}") from None
    assert version.local is None, f"the version {version} has the local part {version.local!r}"
    return str(version)


@checks.promise("say in project.description what the plugin provides")
def description_is_there(built: Built) -> str:
    """There is a description of one line, of at most 512 characters."""
    text = built.metadata.get("summary", "")
    assert text.strip(), "there is no description"
    assert len(text) <= 512, f"the description has {len(text)} characters"
    assert "\n" not in text, "the description has several lines"
    return text


@checks.promise('set project.license = "MIT" or another SPDX expression, and put the text into the file LICENSE')
def license_is_stated(built: Built) -> str:
    """The license is an SPDX expression, or a text or classifier of earlier standards, and its text is in the wheel."""
    found = built.metadata
    expression = found.get("license_expression", "")
    if expression:
        try:
            expression = str(canonicalize_license_expression(expression))
        except InvalidLicenseExpression as error:
            raise AssertionError(f"the license {expression!r} is no SPDX expression: {error}") from None
    older = [one for one in found.get("classifiers", ()) if one.startswith("License ::")]
    stated = expression or found.get("license", "").split("\n")[0] or (older[0] if older else "")
    assert stated, "no license is stated"
    words = ("LICENSE", "LICENCE", "COPYING")
    names = [PurePosixPath(name).name.upper() for name in built.info_files]
    assert any(name.startswith(words) for name in names), f"{stated} is stated, and the wheel holds no license file"
    return stated


@checks.promise(f'set project.requires-python, such as ">=3.{sys.version_info.minor}"')
def python_is_stated(built: Built) -> str:
    """`requires-python` is there, and admits this Python."""
    text = built.metadata.get("requires_python", "")
    assert text, "requires-python is missing"
    try:
        allowed = SpecifierSet(text)
    except InvalidSpecifier:
        raise AssertionError(f"requires-python is {text!r}") from None
    here = ".".join(map(str, sys.version_info[:3]))
    assert allowed.contains(here), f"requires-python {text} excludes Python {here}, which runs this check"
    return text


@checks.promise('add "poolzoo" to project.keywords: that is how people find plugins in an index')
def keywords_name_poolzoo(built: Built) -> str:
    """The keywords name poolzoo."""
    words = [word.strip() for text in built.metadata.get("keywords", ()) for word in text.split(",")]
    assert "poolzoo" in [word.lower() for word in words], f"the keywords are {', '.join(filter(None, words)) or 'none'}"
    return ", ".join(words)


@checks.promise("take classifiers from the package trove-classifiers, which has none for poolzoo")
def classifiers_exist(built: Built) -> str:
    """Every classifier is one that an index knows, and none keeps the plugin private."""
    try:
        from trove_classifiers import classifiers as known
    except ImportError:
        raise Skipped("the package trove-classifiers is not installed") from None
    found = built.metadata.get("classifiers", [])
    unknown = [one for one in found if one not in known and not one.startswith("Private ::")]
    assert not unknown, f"there is no classifier {unknown[0]!r}"
    private = [one for one in found if one.startswith("Private ::")]
    assert not private, f"the classifier {private[0]!r} makes an index refuse it"
    return f"{len(found)} classifiers"


@checks.promise(f'add "poolzoo>={poolzoo.__version__}" to project.dependencies')
def poolzoo_has_lower_bound(built: Built) -> str:
    """It depends on poolzoo, with a lower bound that admits the poolzoo that runs this check."""
    one = built.always_required.get(canonicalize_name("poolzoo"))
    assert one is not None, "it does not depend on poolzoo"
    assert any(part.operator in BOUNDED for part in one.specifier), f"{_shown(one)} has no lower bound"
    here = poolzoo.__version__
    assert one.specifier.contains(here, prereleases=True), f"{_shown(one)} excludes this poolzoo, {here}"
    return _shown(one)


@checks.promise("give lower bounds only, such as torch>=2.9: a pin forces everybody's environment")
def shared_requirements_fit(built: Built) -> str:
    """What it requires that poolzoo requires too, such as torch, admits what is installed here, and pins nothing."""
    shared = _required_by_poolzoo() & set(built.always_required)
    for name in sorted(shared - {"poolzoo"}):
        one = built.always_required[name]
        pinned = [part for part in one.specifier if part.operator in ("==", "===") and not part.version.endswith(".*")]
        assert not pinned, f"{_shown(one)} pins a package that poolzoo uses"
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        assert one.specifier.contains(here, prereleases=True), f"{_shown(one)} excludes {name} {here}, installed here"
    return ", ".join(_shown(built.always_required[name]) for name in sorted(shared)) or "none is shared"


@checks.promise('declare it under [project.entry-points.poolzoo], such as my_pool = "my_pool"')
def entry_points_are_declared(built: Built) -> str:
    """There is an entry point in the group `poolzoo`, and each one names a module of the wheel."""
    assert built.entry_points, "there is no entry point in the group poolzoo"
    for name, value in built.entry_points.items():
        assert re.fullmatch(r"[\w.-]+", name), f"an entry point is called {name!r}"
        module = value.partition(":")[0].partition("[")[0].strip()
        path = module.replace(".", "/")
        inside = f"{path}/__init__.py" in built.wheel_files or f"{path}.py" in built.wheel_files
        assert inside, f"{name} = {value}: the wheel holds no module {module}"
    return ", ".join(f"{name} = {value}" for name, value in built.entry_points.items())


def _shown(one: Requirement) -> str:
    return f"{one.name}{one.specifier}"


def _required_by_poolzoo() -> set[str]:
    """The canonical names of what poolzoo itself depends on."""
    try:
        texts = metadata.requires("poolzoo") or []
    except metadata.PackageNotFoundError:
        texts = []
    found = map(Requirement, texts)
    names = {canonicalize_name(one.name) for one in found if "extra" not in str(one.marker)}
    return {str(name) for name in names} | {"torch"}
