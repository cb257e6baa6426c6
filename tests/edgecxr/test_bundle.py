"""The bundle: what is written is what is read, and nothing else is read."""

import hashlib
import io
import json
import pickle
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgecxr
from edgecxr.bundle import Bundle, Golden, default_bundle_path
from edgecxr.bundle.archive import LIMIT_BYTES, pack, unpack
from edgecxr.bundle.arrays import dump
from edgecxr.errors import BundleError
from edgecxr.radiograph import Lut, Radiograph, Window
from edgecxr.spec import ReadingSpec

MODELS = ("model.fp16.onnx", "model.fp32.onnx", "model.int8.onnx")
HEADER = {
    "bits_stored": 12,
    "slope": 1.0,
    "intercept": 0.0,
    "window": None,
    "inverted": False,
    "padding": None,
    "source": "drawn",
}
MEMBERS = ["card.md", "evaluation.json", "gates.npz", "golden.npz", "manifest.json", *MODELS]


@pytest.fixture(scope="module")
def members(tiny_bundle: Path) -> dict[str, bytes]:
    return unpack(tiny_bundle.read_bytes(), "tiny.cxr")


def sealed(members: dict[str, bytes], /, **manifest: Any) -> dict[str, bytes]:
    """The members with a manifest whose digests match again, and with these of its fields changed."""
    raw = json.loads(members["manifest.json"])
    rest = {name: content for name, content in members.items() if name != "manifest.json"}
    raw["members"] = {name: hashlib.sha256(content).hexdigest() for name, content in rest.items()}
    return {"manifest.json": json.dumps(raw | manifest).encode(), **rest}


def refused(content: dict[str, bytes] | bytes, match: str, folder: Path) -> None:
    path = folder / "altered.cxr"
    path.write_bytes(content if isinstance(content, bytes) else pack(content))
    with pytest.raises(BundleError, match=match) as caught:
        Bundle.open(path).verify()
    assert "\n" not in str(caught.value)


def test_what_was_written_is_read(tiny_bundle: Path, tiny_build: Any) -> None:
    bundle = Bundle.open(tiny_bundle)
    assert bundle.spec == tiny_build.spec
    assert bundle.precisions == ("fp32", "fp16", "int8")
    assert {name: bundle.model(name) for name in bundle.precisions} == tiny_build.models
    assert bundle.manifest.tolerance == 0.05
    assert bundle.manifest.provenance == {"recipe": "tests/tiny_bundle.py"}
    assert bundle.evaluation()["schema"] == 1
    assert bundle.card().startswith("# tiny")
    bundle.verify()


def test_the_golden_set_comes_back_as_stored(tiny_bundle: Path, tiny_build: Any) -> None:
    golden, wanted = Bundle.open(tiny_bundle).golden(), tiny_build.golden
    for frame, original in zip(golden.frames, wanted.frames, strict=True):
        np.testing.assert_array_equal(frame.pixels, original.pixels)
        assert frame.pixels.dtype == np.uint16
        assert replace(frame, pixels=original.pixels) == original
    for precision in ("fp32", "fp16", "int8"):
        np.testing.assert_array_equal(golden.logits[precision], wanted.logits[precision])
        np.testing.assert_array_equal(golden.cam[precision], wanted.cam[precision])
        np.testing.assert_array_equal(golden.embedding[precision], wanted.embedding[precision])


def test_the_gate_decides_as_it_did(tiny_bundle: Path, tiny_build: Any) -> None:
    bundle, embedding = Bundle.open(tiny_bundle), tiny_build.golden.embedding["int8"]
    np.testing.assert_array_equal(bundle.gate("int8").distance(embedding), tiny_build.gates["int8"].distance(embedding))


def test_the_digest_is_that_of_the_manifest(tiny_bundle: Path, members: dict[str, bytes]) -> None:
    assert Bundle.open(tiny_bundle).digest == hashlib.sha256(members["manifest.json"]).hexdigest()


def test_the_same_content_gives_the_same_bytes(tiny_bundle: Path, tiny_build: Any, tmp_path: Path) -> None:
    assert tiny_build.write(tmp_path / "again.cxr").read_bytes() == tiny_bundle.read_bytes()


def test_members_are_stored_without_a_time(tiny_bundle: Path) -> None:
    with zipfile.ZipFile(tiny_bundle) as archive:
        assert sorted(archive.namelist()) == MEMBERS
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_file_that_changes_after_opening_changes_nothing(tiny_bundle: Path, tiny_build: Any, tmp_path: Path) -> None:
    path = tmp_path / "live.cxr"
    path.write_bytes(tiny_bundle.read_bytes())
    bundle = Bundle.open(path)
    path.write_bytes(b"something else")
    assert bundle.model("int8") == tiny_build.models["int8"]


@pytest.mark.parametrize("name", [name for name in MEMBERS if name != "manifest.json"])
def test_a_flipped_bit_in_any_member_is_refused(name: str, members: dict[str, bytes], tmp_path: Path) -> None:
    content = bytearray(members[name])
    content[len(content) // 2] ^= 1
    refused({**members, name: bytes(content)}, f"{name}' has digest .* damaged or altered", tmp_path)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_missing_member_is_refused(name: str, members: dict[str, bytes], tmp_path: Path) -> None:
    rest = {key: value for key, value in members.items() if key != name}
    refused(rest, "no manifest.json" if name == "manifest.json" else f"{name}' is missing", tmp_path)


def test_a_flipped_byte_anywhere_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    whole = tiny_bundle.read_bytes()
    for place in [*range(60), *range(len(whole) - 700, len(whole)), *range(0, len(whole), 4093)]:
        refused(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :], "altered.cxr", tmp_path)


def test_a_file_packed_by_another_program_is_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    refused(buffer.getvalue(), "not a whole bundle .a header in it is not as EdgeCXR writes it", tmp_path)


def test_what_is_packed_is_what_zipfile_would_pack() -> None:
    members = {"manifest.json": b"{}", "empty": b"", "käse": bytes(range(256)) * 300}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, content)
    assert pack(members) == buffer.getvalue()
    assert unpack(pack(members), "made up") == members


def test_a_truncated_file_is_refused_at_every_length(tiny_bundle: Path, tmp_path: Path) -> None:
    whole = tiny_bundle.read_bytes()
    for length in [0, 1, 3, 4, 21, 22, 100, *range(0, len(whole), len(whole) // 40), len(whole) - 22, len(whole) - 1]:
        refused(whole[:length], "altered.cxr: not a whole bundle", tmp_path)


def test_a_newer_schema_is_refused_with_a_sentence(members: dict[str, bytes], tmp_path: Path) -> None:
    newer = sealed(members, schema_version=3, from_the_future={"a": 1})
    refused(newer, r"written in schema 3, this EdgeCXR reads up to 2; install a newer EdgeCXR$", tmp_path)
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as container:  # whose members may be packed in another way, too
        for name, content in newer.items():
            container.writestr(name, content)
    (tmp_path / "other.cxr").write_bytes(other.getvalue())
    with pytest.raises(BundleError, match="written in schema 3, this EdgeCXR reads up to 2"):
        Bundle.open(tmp_path / "other.cxr")


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_a_manifest_that_unpacks_to_too_much_is_not_unpacked(packing: int, tmp_path: Path) -> None:
    path = tmp_path / "bomb.cxr"
    with zipfile.ZipFile(path, "w", packing) as container:
        container.writestr("manifest.json", b" " * 150_000_000)
    tracemalloc.start()
    with pytest.raises(BundleError, match="members of a bundle are stored"):
        Bundle.open(path)
    assert tracemalloc.get_traced_memory()[1] < 100_000_000  # the file itself is read into 64 MB
    tracemalloc.stop()


def test_only_a_model_that_declares_how_films_are_read_needs_schema_2(
    members: dict[str, bytes], tiny_build: Any, tmp_path: Path
) -> None:
    older = json.loads(members["manifest.json"])
    assert (older["schema_version"], "reading" in older["model"]) == (1, False)
    reading = {"reading": ReadingSpec(jpeg2000="reduced")}
    path = tiny_build.write(tmp_path / "new.cxr", model=tiny_build.spec.model_copy(update=reading))
    newer = Bundle.open(path)
    assert (newer.manifest.schema_version, newer.spec.reduced_for) == (2, tiny_build.spec.preprocess)
    reading = {"model": older["model"] | {"reading": {"jpeg2000": "reduced"}}}
    refused(sealed(members, **reading), "model.reading is of schema 2, the manifest says schema 1", tmp_path)
    refused(sealed(members, **reading | {"schema_version": None}), "schema_version: Input should be", tmp_path)


def test_another_chain_is_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    refused(sealed(members, chain="0" * 64), "built by another version of the preprocessing chain", tmp_path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"unknown": 1}, "unknown: Extra inputs are not permitted"),
        ({"schema_version": 0}, "schema_version: Input should be greater"),
        ({"schema_version": "1.5"}, "schema_version: Input should be a valid integer"),
        ({"tolerance": 0}, "tolerance: Input should be greater than 0"),
        ({"members": {"card.md": "abc"}}, "members.card.md: String should match pattern"),
        ({"model": {}}, "model.name: Field required"),
    ],
)
def test_a_manifest_out_of_its_schema_is_refused(
    change: dict[str, Any], match: str, members: dict[str, bytes], tmp_path: Path
) -> None:
    refused(sealed(members, **change), match, tmp_path)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe", b"null", b'"text"', b"[" * 200_000])
def test_a_manifest_that_is_no_object_is_refused(content: bytes, members: dict[str, bytes], tmp_path: Path) -> None:
    refused({**members, "manifest.json": content}, r"altered.cxr: manifest.json", tmp_path)


def test_an_extra_member_is_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    refused({**members, "run.py": b"print()"}, "'run.py' is not in the manifest", tmp_path)
    refused(sealed({**members, "run.py": b"print()"}), "unknown member 'run.py'", tmp_path)


def test_a_bundle_without_a_model_is_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    rest = {name: content for name, content in members.items() if not name.startswith("model")}
    refused(sealed(rest), "holds no model; wanted at least one of model.fp32.onnx", tmp_path)


def test_a_packed_precision_without_temperature_is_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    model = json.loads(members["manifest.json"])["model"]
    del model["temperatures"]["int8"]
    refused(sealed(members, model=model), "no temperature for int8", tmp_path)


@pytest.mark.parametrize("value", [1e300, 20.5, 0.0, -1.0, "NaN", "Infinity"])
def test_a_temperature_that_makes_all_films_alike_is_refused(
    value: float | str, members: dict[str, bytes], tmp_path: Path
) -> None:
    model = json.loads(members["manifest.json"])["model"]
    model["temperatures"]["int8"] = [value]
    refused(sealed(members, model=model), "int8 needs one temperature of 0.05 to 20 per head, got", tmp_path)
    model["temperatures"]["int8"] = [float(value)]  # as JSON of Python writes it, without quotes
    refused(sealed(members, model=model), "int8 needs one temperature of 0.05 to 20 per head, got", tmp_path)


@pytest.mark.parametrize("name", ["/etc/passwd", "../card.md", "a/../../b", "C:evil", "a\\b"])
def test_a_name_that_points_outside_is_refused(name: str, members: dict[str, bytes], tmp_path: Path) -> None:
    refused({**members, name: b"x"}, "points outside the bundle", tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_two_members_of_one_name_are_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    buffer = io.BytesIO(pack(members))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("card.md", b"another card")
    refused(buffer.getvalue(), "two members named 'card.md'", tmp_path)


def test_a_compressed_member_is_refused_before_it_is_unpacked(members: dict[str, bytes], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("card.md", bytes(50 * 2**20))
    refused(buffer.getvalue(), "'card.md' is compressed or encrypted", tmp_path)


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.cxr"
    with path.open("wb") as file:
        file.truncate(LIMIT_BYTES + 1)
    with pytest.raises(BundleError, match="larger than 64 MB"):
        Bundle.open(path)


def test_no_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"none.cxr: cannot be read: No such file"):
        Bundle.open(tmp_path / "none.cxr")
    with pytest.raises(BundleError, match="cannot be read: Is a directory"):
        Bundle.open(tmp_path)


def test_pickled_arrays_are_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, headers=np.array([{"a": 1}], object))
    refused(sealed({**members, "golden.npz": buffer.getvalue()}), "golden.npz: its arrays cannot be read", tmp_path)
    refused(sealed({**members, "golden.npz": pickle.dumps([1])}), "golden.npz: its arrays cannot be read", tmp_path)


def test_arrays_that_unpack_to_too_much_are_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("headers.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(257):
            member.write(bytes(2**20))
    refused(sealed({**members, "golden.npz": buffer.getvalue()}), "golden.npz: unpacks to 2694", tmp_path)


@pytest.mark.parametrize("values", [np.full((6, 3), np.nan, np.float32), np.zeros((5, 3), np.float32)])
def test_golden_outputs_out_of_shape_or_not_finite_are_refused(values: Any, tiny_build: Any, tmp_path: Path) -> None:
    golden = replace(tiny_build.golden, logits={**tiny_build.golden.logits, "int8": values})
    with pytest.raises(BundleError, match=r"logits of int8: got .* wanted finite values of \(6, 3\)"):
        tiny_build.write(tmp_path / "bad.cxr", golden=golden)
    assert not list(tmp_path.iterdir())


def test_a_golden_set_must_have_fp32_and_frames(tiny_build: Any, tmp_path: Path) -> None:
    cut = {name: values for name, values in tiny_build.golden.cam.items() if name != "fp32"}
    with pytest.raises(BundleError, match="cam of fp32: got nothing"):
        tiny_build.write(tmp_path / "bad.cxr", golden=replace(tiny_build.golden, cam=cut))
    with pytest.raises(BundleError, match="holds no frame"):
        tiny_build.write(tmp_path / "bad.cxr", golden=replace(tiny_build.golden, frames=()))


def test_broken_golden_frames_are_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    header = np.frombuffer(json.dumps([HEADER]).encode(), np.uint8)
    for arrays in ({}, {"headers": header}, {"headers": header, "pixels.0": np.zeros((2, 2), np.float64)}):
        altered = sealed({**members, "golden.npz": dump(arrays)})
        refused(altered, "golden.npz: its frames cannot be read", tmp_path)


@pytest.mark.parametrize(
    "headers",
    [
        ["a"],
        3,
        [HEADER | {"padding": []}],
        [HEADER | {"window": [1, "a", "LINEAR"]}],
        [HEADER | {"bits_stored": 99}],
        [HEADER | {"voi_lut": 1}],
    ],
)
def test_headers_of_golden_frames_that_are_none_are_refused(
    headers: Any, members: dict[str, bytes], tmp_path: Path
) -> None:
    arrays = {
        "headers": np.frombuffer(json.dumps(headers).encode(), np.uint8),
        "pixels.0": np.zeros((2, 2), np.uint16),
    }
    altered = sealed({**members, "golden.npz": dump(arrays)})
    refused(altered, "golden.npz: its frames: .*; build the bundle again", tmp_path)


def test_headers_nested_too_deep_are_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    altered = sealed({**members, "golden.npz": dump({"headers": np.full(200_000, ord("["), np.uint8)})})
    refused(altered, "golden.npz: its frames: ", tmp_path)


def test_a_gate_of_text_is_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    arrays = {f"fp32.{name}": np.array(["a"]) for name in ("mean", "basis", "spread", "weights")}
    altered = sealed({**members, "gates.npz": dump(arrays)})
    refused(altered, "gates.npz: its arrays cannot be read .*plain numbers", tmp_path)


@pytest.mark.parametrize("shape", ["(4398046511104,)", "(3,)", "(0, 99999999999999999999999)"])
def test_an_array_that_claims_what_it_has_not_is_refused(shape: str, members: dict[str, bytes], tmp_path: Path) -> None:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("headers.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
    altered = sealed({**members, "golden.npz": buffer.getvalue()})
    refused(altered, "golden.npz: its arrays cannot be read", tmp_path)


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_arrays_that_claim_little_and_hold_much_are_not_unpacked(
    packing: int, members: dict[str, bytes], tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        archive.writestr("headers.npy", bytes(200_000_000))
    claimed = (200_000_000).to_bytes(4, "little")
    small = buffer.getvalue().replace(claimed, (200).to_bytes(4, "little"))
    bundle = sealed({**members, "golden.npz": small})
    tracemalloc.start()
    refused(bundle, "golden.npz: its arrays cannot be read", tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 100_000_000
    tracemalloc.stop()


def test_more_members_than_a_bundle_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "many.cxr"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(66_000):  # more than the directory of a plain zip can count
            archive.writestr(str(index), b"")
    refused(path.read_bytes(), "holds 66000 members, a bundle 64 at most", tmp_path)


def test_a_golden_frame_with_a_table_is_not_written(tiny_build: Any, tmp_path: Path) -> None:
    lut = Lut(0, np.arange(4, dtype=np.uint16), 12)
    golden = replace(tiny_build.golden, frames=(replace(tiny_build.films[0], voi_lut=lut),))
    with pytest.raises(BundleError, match="has a lookup table; golden frames are phantoms"):
        tiny_build.write(tmp_path / "bad.cxr", golden=golden)


def test_windows_padding_and_polarity_travel() -> None:
    frame = Radiograph(
        np.arange(12, dtype=np.int16).reshape(3, 4),
        12,
        slope=2.0,
        intercept=-5.5,
        window=Window(40.5, 400, "SIGMOID"),
        inverted=True,
        padding=(-3, 7),
        source="made up",
    )
    read = Golden.from_bytes(Golden((frame,), {}, {}, {}).to_bytes()).frames[0]
    np.testing.assert_array_equal(read.pixels, frame.pixels)
    assert replace(read, pixels=frame.pixels) == frame


def test_a_precision_that_is_not_packed_names_the_choices(tiny_build: Any, tmp_path: Path) -> None:
    models = {"fp16": tiny_build.models["fp16"]}
    path = tiny_build.write(tmp_path / "one.cxr", models=models, gates={"fp16": tiny_build.gates["fp16"]})
    with pytest.raises(BundleError, match="int8 is not packed; choose fp16"):
        Bundle.open(path).model("int8")


def test_a_precision_without_gate_is_not_written(tiny_build: Any, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"gates\.npz has no gate for fp32"):
        tiny_build.write(tmp_path / "bad.cxr", gates={"int8": tiny_build.gates["int8"]})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"evaluation": {"auroc": float("nan")}}, "evaluation cannot be written as JSON"),
        ({"evaluation": {"auroc": object()}}, "evaluation cannot be written as JSON"),
        ({"tolerance": 2.0}, "tolerance: Input should be less than or equal to 1"),
        ({"models": {}}, "holds no model"),
    ],
)
def test_a_failed_write_leaves_the_old_bundle(
    change: dict[str, Any], match: str, tiny_build: Any, tmp_path: Path
) -> None:
    path = tmp_path / "kept.cxr"
    path.write_bytes(b"the bundle that was here")
    with pytest.raises(BundleError, match=match):
        tiny_build.write(path, **change)
    assert path.read_bytes() == b"the bundle that was here"
    assert list(tmp_path.iterdir()) == [path]


def test_the_shipped_bundle_is_in_the_package() -> None:
    assert default_bundle_path() == Path(edgecxr.__file__).parent / "models" / "covid3.cxr"
    assert default_bundle_path().is_file()
