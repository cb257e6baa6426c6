"""The node's configuration: what is taken, and what each mistake is told as."""

import configparser
from pathlib import Path

import pytest

from edgecxr.errors import ConfigError
from edgecxr.runtimes.node.config import NodeConfig, load_config

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "node.yaml"


def written(folder: Path, text: str) -> Path:
    path = folder / "node.yaml"
    path.write_text(text)
    return path


def test_a_folder_is_enough(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "folder: here\n"))
    assert config.folder == tmp_path / "here"
    assert config.dicom is not None
    assert (config.dicom.ae, config.dicom.port) == ("EDGECXR", 11112)
    assert config.http is not None
    assert config.http.host == "127.0.0.1"
    assert config.bundle.allow_unsigned is False
    assert config.destinations == ()


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = "folder: /var/lib/edgecxr\nwatch: [{folder: in}]\nbundle: {path: m.cxr, trusted_keys: [a.pub, /b.pub]}\n"
    config = load_config(written(tmp_path, text))
    assert config.folder == Path("/var/lib/edgecxr")
    assert config.watch[0].folder == tmp_path / "in"
    assert config.bundle.path == tmp_path / "m.cxr"
    assert config.bundle.trusted_keys == (tmp_path / "a.pub", Path("/b.pub"))


def test_parts_can_be_left_out(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "folder: here\ndicom: null\nhttp: null\n"))
    assert (config.dicom, config.http) == (None, None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("dicom: {port: 104}", r"node\.yaml:1: the configuration lacks 'folder'"),
        ("folder: x\ndicom:\n  prot: 104", r"node\.yaml:3: unknown key 'prot' in dicom; did you mean 'port'\?"),
        (
            "folder: x\ndicom: {port: 70000}",
            r"node\.yaml:2: dicom\.port: got 70000, wanted less than",
        ),
        ("folder: x\ndicom: {ae: A-TITLE-OF-MORE-THAN-16}", r"node\.yaml:2: dicom\.ae"),
        ("folder: x\nhttp: {host: 0.0.0.0}", r"node\.yaml:2: http: host 0\.0\.0\.0 can be reached .* set a password"),
        ("folder: x\nhttp: {password: short}", r"node\.yaml:2: http\.password"),
        (
            "folder: x\ndestinations:\n- {name: a, ae: A, host: h, port: 1}\n- {name: a, ae: B, host: h, port: 2}",
            r"two destinations are named 'a'",
        ),
        ("folder: x\nfolder: y", r"node\.yaml:2: key 'folder' is given twice"),
        ("folder: x\nscreening: {timeout_s: 0}", r"node\.yaml:2: screening\.timeout_s: got 0, wanted greater than 0"),
        ("- folder", r"node\.yaml:1: a configuration is a mapping of keys"),
        ("folder: [", r"node\.yaml:\d+: not YAML"),
    ],
)
def test_each_mistake_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config(written(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "absent.yaml")


def test_the_example_is_right_and_names_every_section() -> None:
    config = load_config(EXAMPLE)
    assert set(NodeConfig.model_fields) <= config.model_fields_set
    assert config.destinations
    assert config.watch


def test_the_manual_shows_the_example() -> None:
    assert f"```yaml\n{EXAMPLE.read_text()}```" in (EXAMPLE.parents[1] / "node.md").read_text()


def systemd_unit(*names: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(strict=False, interpolation=None, allow_no_value=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    assert unit.read([EXAMPLE.with_name(name) for name in names]) == [str(EXAMPLE.with_name(name)) for name in names]
    return unit


def test_the_systemd_unit_is_a_unit() -> None:
    unit = systemd_unit("edgecxr.service")
    service = unit["Service"]
    assert service["ExecStart"].endswith("edgecxr serve --config /etc/edgecxr/node.yaml")
    assert (service["KillMode"], service["NoNewPrivileges"], service["ProtectSystem"]) == ("mixed", "yes", "strict")
    assert unit["Install"]["WantedBy"] == "multi-user.target"


def test_the_drop_in_lets_the_service_see_a_gpu_and_keep_engines() -> None:
    """What a sandbox without devices, or with a read-only cache, would take from it; the rest of the unit holds."""
    service = systemd_unit("edgecxr.service", "edgecxr-nvidia.conf")["Service"]
    assert (service["PrivateDevices"], service["ProtectClock"]) == ("no", "no")
    assert service["SupplementaryGroups"].split() == ["video", "render"]
    assert service["Environment"] == f"EDGECXR_CACHE=/var/cache/{service['CacheDirectory']}"
    assert int(service["CacheDirectoryMode"], 8) & 0o022 == 0  # a cache that others may write is refused
    assert (service["NoNewPrivileges"], service["ProtectSystem"], service["User"]) == ("yes", "strict", "edgecxr")
    assert not {"DevicePolicy", "DeviceAllow", "MemoryDenyWriteExecute"} & set(service)
