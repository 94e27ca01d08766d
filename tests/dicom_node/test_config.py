"""A configuration is right as a whole, or every problem of it is told at once."""

from importlib.resources import files
from pathlib import Path

import pytest

from cam_core.method import method_named
from cam_core.panel import DEFAULT_PANEL
from dicom_node.config import load_config, parse_config
from dicom_node.errors import ConfigurationError

GOOD = {
    "peers": {"pacs": {"ae_title": "PACS", "host": "127.0.0.1", "port": 104}},
    "models": {"m": "models/model.toml"},
    "routes": [{"name": "r", "model": "m", "destinations": ["pacs"]}],
}


def problems(document):
    with pytest.raises(ConfigurationError) as error:
        parse_config(document, Path("camnode.toml"))
    return error.value.problems


def test_defaults_are_enough():
    config = parse_config({}, Path("/site/camnode.toml"))
    assert (config.receiving.maximum_associations, config.receiving.maximum_pdu) == (100, 131_072)
    assert config.database_url == "sqlite:////site/camnode-data/camnode.db"


def test_paths_are_taken_from_the_file_s_folder():
    config = parse_config(GOOD, Path("/site/etc/camnode.toml"))
    assert config.models["m"] == Path("/site/etc/models/model.toml")
    assert config.node.folder == Path("/site/etc/camnode-data")


def test_one_url_changes_the_database():
    config = parse_config({"storage": {"database": "postgresql+psycopg://camnode@db/camnode"}}, Path("c.toml"))
    assert config.database_url == "postgresql+psycopg://camnode@db/camnode"
    assert problems({"storage": {"database": "mysql://x"}})


def test_every_problem_is_told_at_once():
    found = problems({"receiving": {"prot": 1, "port": 70_000}, "nod": {}, "studies": {"quiet_seconds": -1}})
    assert any("receiving.prot: unknown key" in one for one in found)
    assert any(one.startswith("nod: unknown key") for one in found)
    assert any(one.startswith("receiving.port") for one in found)
    assert any(one.startswith("studies.quiet_seconds") for one in found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"models": {}}, "no model 'm'"),
        ({"peers": {}}, "no peer 'pacs'"),
        ({"peers": {"pacs": {"ae_title": "PACS"}}}, "needs host and port"),
        ({"peers": {"pacs": {"ae_title": "PACS", "role": "sender"}}}, "is a sender"),
        ({"peers": {"pacs": {"ae_title": "A" * 17, "host": "h", "port": 1}}}, "16 characters"),
        ({"peers": {"pacs": {"ae_title": "A", "host": "h", "port": 1, "subnet": "10.0.0.300"}}}, "subnet"),
        ({"routes": GOOD["routes"] * 2}, "used twice"),
        ({"routes": [{**GOOD["routes"][0], "output": {"opacity": 0.9}}]}, "opacity"),
        ({"routes": [{**GOOD["routes"][0], "output": {"palette": "hot"}}]}, "palette"),
        ({"routes": [{**GOOD["routes"][0], "destinations": []}]}, "destinations"),
    ],
)
def test_what_does_not_fit_together_is_told(change, words):
    assert any(words in one for one in problems({**GOOD, **change}))


def test_a_missing_or_broken_file_is_told(tmp_path):
    with pytest.raises(ConfigurationError, match="camnode init"):
        load_config(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[node\n")
    with pytest.raises(ConfigurationError, match=r"broken\.toml"):
        load_config(broken)


def test_the_example_is_a_valid_configuration_that_names_every_key(tmp_path):
    example = files("dicom_node.cli").joinpath("example.toml").read_text(encoding="utf-8")
    path = tmp_path / "camnode.toml"
    path.write_text(example.replace("@CHEST_DEMO@", "model.toml").replace("@PALETTE@", "cividis"))
    config = load_config(path)
    assert config.routes[0].destinations == ("pacs",)
    for section in ("node", "storage", "receiving", "studies", "work", "sending"):
        for key in getattr(config, section).__dataclass_fields__:
            assert f"\n{key} = " in example, f"{section}.{key} is not in the example"


def test_the_default_methods_are_one_of_each_independent_family():
    (route,) = parse_config(GOOD, Path("camnode.toml")).routes
    assert route.methods == DEFAULT_PANEL
    families = [method_named(name).family for name in DEFAULT_PANEL]
    assert len(set(families)) == len(families)
