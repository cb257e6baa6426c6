import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from edgecxr.dataset import HeadColumns, load_dataset
from edgecxr.errors import DatasetError, StageError
from edgecxr.kernels import preprocess
from edgecxr.phantom import chest, write_dataset, write_dicom
from edgecxr.read import read_radiograph
from edgecxr.spec import IN_FULL, Head, PreprocessSpec, ReadingSpec
from edgecxr.teachers.film_cache import build_film_cache, film_batch

pytestmark = pytest.mark.train
HEAD = HeadColumns(head=Head(name="diagnosis", kind="softmax", classes=("normal", "covid", "pneumonia")))
SPEC = PreprocessSpec(size=48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("films"), 5, 0)


@pytest.fixture
def dataset(folder):
    return load_dataset(folder, heads=[HEAD])


def test_it_holds_what_deployment_would_see(dataset, tmp_path):
    cache = build_film_cache(dataset, SPEC, tmp_path, threads=2)
    films = [read_radiograph(film.path) for film in dataset.films]
    assert cache.images.shape == (15, 1, 48, 48)
    np.testing.assert_allclose(cache.images, preprocess(films, SPEC), atol=2**-12, rtol=0)
    np.testing.assert_array_equal(cache.images, film_batch(films, SPEC))


def test_it_is_made_once_per_specification(dataset, tmp_path):
    seen = []
    build_film_cache(dataset, SPEC, tmp_path, progress=lambda *shown: seen.append(shown))
    assert seen[-1][:2] == (15, 15)
    build_film_cache(dataset, SPEC, tmp_path, progress=lambda *shown: pytest.fail("made again"))
    build_film_cache(dataset, PreprocessSpec(size=32), tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_its_room_on_the_disk_is_taken_before_it_is_filled(dataset, tmp_path):
    seen = []

    def look(*_):
        (partial,) = tmp_path.glob(".*.partial.npy")
        seen.append(partial.stat())

    build_film_cache(dataset, PreprocessSpec(size=256), tmp_path, threads=1, progress=look)
    assert seen[0].st_blocks * 512 >= seen[0].st_size


def test_a_disk_without_room_is_told_of_before_a_film_is_read(folder, tmp_path):
    script = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        from edgecxr.dataset import load_dataset
        from edgecxr.spec import PreprocessSpec
        from edgecxr.teachers.film_cache import build_film_cache

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            build_film_cache(load_dataset(sys.argv[1]), PreprocessSpec(size=256), Path(sys.argv[2]))
        except OSError as error:
            print(error.strerror)
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(folder), str(tmp_path)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == "File too large\n"
    assert not list(tmp_path.iterdir())


def test_jpeg_2000_is_read_as_the_model_will_read_it(tmp_path):
    folder = write_dataset(tmp_path / "films", 5, size=64)
    first = load_dataset(folder, heads=[HEAD]).films[0].path
    first.write_bytes(write_dicom(chest(1, size=256), tmp_path / "film", syntax="jpeg2000").read_bytes())
    dataset, reading = load_dataset(folder, heads=[HEAD]), ReadingSpec(jpeg2000="reduced")
    full, coarse = (build_film_cache(dataset, SPEC, tmp_path / "cache", reading=each) for each in (IN_FULL, reading))
    np.testing.assert_array_equal(coarse.images[0], film_batch([read_radiograph(first, reduced_for=SPEC)], SPEC)[0])
    assert 0 < np.abs(coarse.images[0] - full.images[0]).max() < 0.1
    np.testing.assert_array_equal(coarse.images[1:], full.images[1:])


def test_a_selection_finds_its_rows(dataset, tmp_path):
    cache = build_film_cache(dataset, SPEC, tmp_path)
    part = dataset.select([dataset.films[0].fold])
    rows = cache.rows(part)
    assert [dataset.films[row] for row in rows] == list(part.films)
    small = build_film_cache(part, SPEC, tmp_path)
    with pytest.raises(StageError, match="are not in the cache"):
        small.rows(dataset)


def test_refused_films_are_all_named_and_nothing_is_kept(tmp_path):
    folder = write_dataset(tmp_path / "films", 5, size=64)
    dataset = load_dataset(folder, heads=[HEAD])
    for film in dataset.films[2:4]:
        film.path.write_bytes(b"this is not a film")
    with pytest.raises(DatasetError, match="2 problem") as caught:
        build_film_cache(dataset, SPEC, tmp_path / "cache")
    assert [str(film.path) in problem for film, problem in zip(dataset.films[2:4], caught.value.problems, strict=True)]
    assert not list((tmp_path / "cache").iterdir())
