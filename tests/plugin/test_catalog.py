"""Names are looked up in one order: the distribution that is named, the preferred, the built-in, the first."""

from __future__ import annotations

import hashlib

import pluggy
import pytest

from poolzoo.common.errors import PluginFailed, UsageError
from poolzoo.plugin import spec
from poolzoo.plugin.catalog import MAX_BROKEN, MAX_LISTED, Catalog, Entry
from poolzoo.plugin.problems import Problem, Source, by_stage, problem_of, short_repr, summary

OURS = Source("poolzoo", "1.0", "built-in")
ACME = Source("acme", "2.1", "package")
BETA = Source("beta", None, "file", "/plugins/beta.py")


def build(channels: int, *, p: float = 3.0) -> None: ...


def pooling(name: str, kind: str = "global") -> spec.Pooling:
    return spec.Pooling(name=name, summary=f"{name} pooling", kind=kind, build=build)


def backbone(name: str) -> spec.Backbone:
    return spec.Backbone(name=name, summary=name, build=lambda: None)


def family(prefix: str, *names: str) -> spec.BackboneFamily:
    known = {name: backbone(f"{prefix}/{name}") for name in names}
    return spec.BackboneFamily(prefix=prefix, summary=prefix, names=lambda: names, get=known.__getitem__)


def dataset(name: str) -> spec.Dataset:
    return spec.Dataset(name=name, summary=name, load=lambda split, folder: None)


def source(prefix: str) -> spec.DatasetSource:
    return spec.DatasetSource(prefix=prefix, summary=prefix, open=lambda path: None)


def catalog(*entries: tuple[spec.Pooling, Source], prefer: tuple[str, ...] = ()) -> Catalog:
    found = Catalog(pluggy.PluginManager("poolzoo"), prefer)
    for item, where in entries:
        found.add(Entry(item, where))
    return found


def refused(call, *arguments: str) -> tuple[str, str]:
    """Message and hint."""
    with pytest.raises(UsageError) as caught:
        call(*arguments)
    return caught.value.message, caught.value.hint


GEM = ((pooling("gem"), BETA), (pooling("gem"), ACME), (pooling("gem"), OURS))


@pytest.mark.parametrize(
    ("prefer", "text", "dist"),
    [
        ((), "gem", "poolzoo"),
        ((), "acme:gem", "acme"),
        (("acme",), "gem", "acme"),
        (("nobody", "beta", "acme"), "gem", "beta"),
        (("acme",), "poolzoo:gem:p=4", "poolzoo"),
    ],
)
def test_the_named_the_preferred_the_built_in_comes_first(prefer, text, dist):
    assert catalog(*GEM, prefer=prefer).pooling(text, "global").entry.source.dist == dist


def test_without_a_built_in_one_the_first_is_meant():
    found = catalog(*GEM[:2])
    assert found.pooling("gem", "global").entry.source == BETA
    assert [found.identity(Entry(item, where)) for item, where in GEM[:2]] == ["gem", "acme:gem"]


def test_an_identity_does_not_depend_on_what_is_preferred():
    found = catalog(*GEM, prefer=("acme",))
    assert [found.identity(entry) for entry in found.entries] == ["beta:gem", "acme:gem", "gem"]
    assert found.identity(Entry(pooling("new"), ACME)) == "new"
    assert found.identity(Entry(pooling("gem"), Source("", None, "file"))) == "gem"


def test_only_what_is_preferred_is_pinned():
    found = catalog(*GEM, prefer=("acme",))
    assert found.pinned("gem:p=2", spec.Pooling) == "acme:gem:p=2"
    assert found.pinned("beta:gem", spec.Pooling) == "beta:gem"
    assert found.pinned("absent", spec.Pooling) == "absent"
    assert catalog(*GEM).pinned("gem", spec.Pooling) == "gem"
    assert [found.is_preferred(one) for one in (ACME, BETA, OURS)] == [True, False, False]


def test_a_duplicate_is_a_second_name_of_its_original():
    found = catalog(*GEM, prefer=("copy",))
    found.add_duplicate("gem", Source("copy", None, "file"), BETA)
    assert found.pooling("copy:gem", "global").entry.source == BETA
    assert found.pooling("gem", "global").entry.source == BETA
    assert found.matches(None, ACME)
    assert not found.matches("copy", ACME)
    assert found.duplicates == {("gem", Source("copy", None, "file")): "beta"}


def test_entries_are_chosen_by_type_and_pattern():
    found = catalog((pooling("gem"), OURS), (backbone("nano/gem"), OURS), (pooling("avg"), ACME))
    assert [one.item.name for one in found.select(spec.Pooling)] == ["gem", "avg"]
    assert [one.item.name for one in found.select((spec.Pooling, spec.Backbone), "*gem")] == ["gem", "nano/gem"]
    assert found.select(spec.Pooling, "GEM") == []


def test_one_name_may_mean_a_backbone_and_its_family():
    found = catalog((backbone("timm/a"), ACME), (family("timm", "a"), OURS), (pooling("a"), OURS))
    assert [one.source for one in found.same_name(backbone("timm/a"))] == [ACME, OURS]
    assert [one.source for one in found.same_name(family("timm"))] == [OURS]
    assert found.same_name(pooling("a", "local")) == []


def test_an_unknown_pooling_is_answered_with_what_there_is():
    found = catalog((pooling("gem"), OURS), (pooling("avg"), ACME), (pooling("blur", "local"), OURS))
    call = found.pooling
    assert refused(call, "gen", "global") == ("no global pooling is called 'gen'", "did you mean gem?")
    assert refused(call, "acme:zzz", "global") == ("no global pooling is called 'acme:zzz'", "there are: avg, gem")
    assert refused(call, "blur", "global")[1] == "it exists as the other kind; the global poolings are: avg, gem"
    many = catalog(*((pooling(f"a{number}"), OURS) for number in range(MAX_LISTED)))
    assert refused(many.pooling, "zzz", "global")[1].startswith("there are: a0, a1")
    many.add(Entry(pooling("b"), OURS))
    assert refused(many.pooling, "zzz", "global")[1] == "poolzoo list poolings"


def test_a_bare_backbone_is_one_of_the_timm_family():
    found = catalog((family("timm", "resnet18", "vgg11"), OURS), (family("other", "net"), ACME))
    assert found.backbone("resnet18").item.name == "timm/resnet18"
    assert found.backbone("timm/vgg11").item.name == "timm/vgg11"
    assert found.backbone("other/net").entry.source == ACME
    assert found.family("other", "acme").source == ACME
    assert found.family("other", "beta") is None
    message, hint = refused(found.backbone, "resnet81")
    assert (message, hint) == ("no backbone is called 'resnet81'", "did you mean timm/resnet18?")
    assert refused(found.backbone, "other/zzzz")[1] == "poolzoo list backbones --filter 'other/*' shows what there is"


def test_a_plugin_does_not_shadow_a_built_in_family():
    ours = (family("timm", "resnet18"), OURS)
    assert catalog(ours, (backbone("timm/resnet18"), ACME)).backbone("timm/resnet18").entry.source == OURS
    assert catalog(ours, (backbone("timm/mine"), ACME)).backbone("timm/mine").entry.source == ACME
    named = backbone("timm/resnet18")
    assert catalog(ours, (named, OURS)).backbone("timm/resnet18").item is named
    theirs = (family("zoo", "net"), BETA)
    assert catalog(theirs, (backbone("zoo/net"), ACME)).backbone("zoo/net").entry.source == ACME


@pytest.mark.parametrize(
    ("get", "says"),
    [
        (lambda name: 1 / 0, "family zoo/* (acme) failed: ZeroDivisionError: division by zero"),
        (lambda name: name, "family zoo/* gave a str for net"),
    ],
    ids=["raises", "another type"],
)
def test_a_family_that_breaks_its_promise_is_named(get, says):
    broken = spec.BackboneFamily(prefix="zoo", summary="zoo", names=lambda: ["net"], get=get)
    with pytest.raises(PluginFailed) as caught:
        catalog((broken, ACME)).backbone("zoo/net")
    assert caught.value.message == says


def test_data_sets_and_their_sources_are_told_apart():
    found = catalog((dataset("digits"), OURS), (source("csv"), OURS), (source("csv"), ACME))
    assert found.dataset("digits").source == OURS
    assert refused(found.dataset, "csv") == (
        "csv: is a source of data, and no data set",
        "poolzoo show csv says what to type",
    )
    assert refused(found.dataset, "cvs:x.csv") == ("no source of data is called 'cvs:'", "did you mean csv?")
    assert refused(found.dataset, "digits:n=3") == ("data set 'digits' takes no options", "leave them out")
    assert refused(found.dataset, "digit") == ("no data set is called 'digit'", "did you mean digits?")
    assert found.source("csv:a.csv").source == OURS
    assert found.source("csv") is None
    assert found.source("tsv:a.csv") is None
    assert catalog((source("csv"), OURS), (source("csv"), ACME), prefer=("acme",)).source("csv:a").source == ACME
    assert catalog((source("csv"), BETA), (source("csv"), ACME)).source("csv:a").source == BETA


def test_a_runtime_takes_no_options():
    runtime = spec.Runtime(name="plain", summary="plain", open=lambda *_, **__: None)
    found = catalog((runtime, ACME))
    assert found.runtime("plain").source == ACME
    assert refused(found.runtime, "plain:n=1") == ("runtime 'plain' takes no options", "leave them out")
    assert refused(found.runtime, "plane") == ("no runtime is called 'plane'", "did you mean plain?")


def test_plugins_that_did_not_load_are_named_beside_a_hint():
    found = catalog((pooling("gem"), OURS))
    found.problems += [problem_of(f"p{number}", ACME, "import", f"error {number}", "fix it") for number in range(7)]
    found.problems.append(problem_of("p0", ACME, "call", "second", ""))
    found.problems.append(problem_of("clashing", ACME, "register", "same name", "", clash=True))
    listed = "; ".join(f"p{number} did not load (error {number})" for number in range(MAX_BROKEN))
    assert found.with_problems("hint") == f"hint — also: {listed} and 2 more"
    assert catalog().with_problems("hint") == "hint"


def test_a_problem_says_how_to_do_without_the_plugin(monkeypatch):
    monkeypatch.delenv("POOLZOO_PLUGINS_DIR", raising=False)
    folder = Source("mine", None, "folder", "/plugins/my file.py")
    assert OURS.how_to_disable("x") == ""
    assert ACME.how_to_disable("a b") == "poolzoo plugin disable 'a b'"
    assert BETA.how_to_disable("beta") == "leave --plugin /plugins/beta.py out"
    assert folder.how_to_disable("mine") == "poolzoo plugin disable mine --plugins-dir /plugins"
    monkeypatch.setenv("POOLZOO_PLUGINS_DIR", "/plugins")
    assert folder.how_to_disable("mine") == "poolzoo plugin disable mine"
    found = problem_of("acme", ACME, "import", ValueError("no\nway"), "fix it")
    assert str(found) == "plugin acme (acme 2.1) failed at import: ValueError: no way"
    assert found.hint == "fix it; or poolzoo plugin disable acme"
    assert found.to_json() == {
        "plugin": "acme", "dist": "acme", "version": "2.1", "stage": "import",
        "error": "ValueError: no way", "hint": "fix it; or poolzoo plugin disable acme",
    }  # fmt: skip
    assert problem_of("b", BETA, "call", "", "").error == "no reason given"


def test_the_source_of_a_plugin_hashes_its_file(tmp_path):
    (tmp_path / "a.py").write_bytes(b"a = 1\n")
    digest = hashlib.sha256(b"a = 1\n").hexdigest()
    assert Source("a", None, "file", str(tmp_path / "a.py")).sha256() == digest
    assert Source("a", "1", "package", None, str(tmp_path / "a.py")).sha256() == digest
    assert Source("a", "1", "package").sha256() is None
    assert Source("a", "1", "package").to_json() == {"dist": "a", "version": "1", "tier": "package"}


def test_many_problems_are_few_lines():
    def one(plugin: str, stage: str, error: str) -> Problem:
        return Problem(plugin, "acme", None, stage, error, f"fix {plugin}", ACME)

    own = [one("a", "call", f"e{number}") for number in range(5)] + [one("a", "import", "x")]
    assert by_stage(own) == "call: e0; e1; e2 and 2 more; at import: x"
    assert summary(own) == [("plugin a (acme) failed at call: e0; e1; e2 and 2 more; at import: x", "fix a")]
    ten = [one(f"p{number}", "call", "e") for number in range(10)]
    assert len(summary(ten)) == 10
    eleven = summary([*ten, one("q", "call", "e")])
    assert len(eleven) == 6
    assert eleven[-1] == ("and 6 more: poolzoo plugin list --load", "")


def test_a_value_is_shown_in_few_characters_whatever_it_does():
    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError

    assert short_repr("a") == "'a'"
    assert len(short_repr("a" * 500)) == 80
    assert short_repr(Hostile()) == "(its repr raises RuntimeError)"
