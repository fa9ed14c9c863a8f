"""cli: what is written, what is said, the exit status; the reconstruction is a stand-in."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic_references import reference_face, write_reference_set

from extreme3d_fast import cli
from extreme3d_fast.camera import Camera
from extreme3d_fast.cli import ALL_DONE, SOME_FAILED, WRONG_USE, main, unique_names
from extreme3d_fast.errors import NoFaceFound
from extreme3d_fast.face import Face, Provenance
from extreme3d_fast.image_io import load_image
from extreme3d_fast.mesh_io import Mesh
from extreme3d_fast.occlusion import Occlusion
from extreme3d_fast.reference_builder import Candidate
from extreme3d_fast.references import ReferenceSet


@pytest.fixture
def face(sphere: Mesh) -> Face:
    count, side = len(sphere.vertices), 8
    return Face(
        vertices=sphere.vertices,
        faces=sphere.faces,
        colors=sphere.colors,
        provenance=np.full(count, Provenance.OBSERVED, np.uint8),
        foundation=sphere.vertices,
        foundation_faces=sphere.faces,
        identity=np.zeros(99, np.float32),
        expression=np.zeros(52, np.float32),
        foundation_source="landmarks",
        camera=Camera(10.0, 10.0, 4.0, 4.0, side, side),
        camera_from_head=np.eye(4, dtype=np.float32),
        crop_from_image=np.eye(3),
        photo=np.zeros((side, side, 3), np.uint8),
        depth=np.full((side, side), np.inf, np.float32),
        bump=np.zeros((side, side), np.float32),
        face_mask=np.zeros((side, side), bool),
        face_probability=np.zeros((side, side), np.float32),
        occlusion=Occlusion(np.zeros((side, side), bool), 0.0, "reference"),
        warnings=("it is a sphere",),
        timings={"detect": 1.0},
    )


class StandIn:
    """Finds as many faces in a photo as the red of its first pixel tells."""

    def __init__(self, face: Face) -> None:
        self._face = face

    def reconstruct(self, image: NDArray[np.uint8]) -> Face:
        if image[0, 0, 0] == 0:
            raise NoFaceFound("no face found in the photo")
        if image[0, 0, 0] == 99:
            raise MemoryError
        return self._face

    def reconstruct_all(self, image: NDArray[np.uint8]) -> list[Face]:
        return [self._face] * int(image[0, 0, 0])


@pytest.fixture
def run(face: Face, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(cli, "make_reconstructor", lambda _: StandIn(face))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> int:
        return main(["reconstruct", *arguments, "-o", "out"])

    return call


def photo(name: str, faces: int) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(name, np.full((4, 4, 3), faces, np.uint8))
    return name


def written() -> Sequence[str]:
    return sorted(path.name for path in Path("out").iterdir())


def test_each_photo_gives_a_glb(run) -> None:
    assert run(photo("a.png", 1), photo("b.png", 1)) == ALL_DONE
    assert written() == ["a.glb", "b.glb"]


def test_formats_and_turntable_are_written(run) -> None:
    formats = ("--format", "ply", "--format", "stl", "--format", "ply")
    assert run(photo("a.png", 1), *formats, "--turntable") == ALL_DONE
    assert written() == ["a.ply", "a.stl", "a_turntable.png"]
    assert cv2.imread("out/a_turntable.png").shape[1] > 1000


def test_bad_files_never_stop_the_rest(run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.jpg").write_text("hello")
    photos = ["missing.jpg", "text.jpg", photo("empty.png", 0), photo("big.png", 99)]
    assert run(*photos, photo("good.png", 1)) == SOME_FAILED
    assert written() == ["good.glb"]
    errors = capsys.readouterr().err
    assert "missing.jpg: there is no image file" in errors
    assert "text.jpg is not an image file" in errors
    assert "empty.png: no face found" in errors
    assert "big.png: MemoryError" in errors
    assert "4 of 5 photos failed" in errors


def test_all_faces_are_numbered(run) -> None:
    assert run(photo("group.png", 3), photo("one.png", 1), "--all-faces") == ALL_DONE
    assert written() == ["group_face1.glb", "group_face2.glb", "group_face3.glb", "one.glb"]


def test_no_face_among_all_faces_is_a_failure(run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(photo("empty.png", 0), "--all-faces") == SOME_FAILED
    assert "empty.png: no face found" in capsys.readouterr().err


def test_photos_of_the_same_name_do_not_overwrite_each_other(run) -> None:
    assert run(photo("x/me.png", 1), photo("y/me.png", 1), photo("me_2.png", 1)) == ALL_DONE
    assert written() == ["me.glb", "me_2.glb", "me_3.glb"]


def test_names_are_unique_where_case_does_not_count() -> None:
    assert unique_names(["a/P.jpg", "b/p.png", "p_2.jpg", "p.bmp"]) == ["P", "p_3", "p_2", "p_4"]


def test_warnings_are_shown(run, capsys: pytest.CaptureFixture[str]) -> None:
    run(photo("a.png", 1))
    assert "a.png: warning: it is a sphere" in capsys.readouterr().err


def test_output_that_is_a_file_is_wrong_use(run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").touch()
    assert run(photo("a.png", 1)) == WRONG_USE
    assert "extreme3d: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["reconstruct"],
        ["reconstruct", "a.png"],
        ["reconstruct", "a.png", "-o", "out", "--format", "fbx"],
        ["reconstruct", "a.png", "-o", "out", "--threads", "0"],
        ["reconstruct", "a.png", "-o", "out", "--foundation", "magic"],
        ["reconstruct", "a.png", "-o", "out", "--detail", "magic"],
        ["references"],
        ["references", "build", "a.png"],
        ["references", "build", "a.png", "-o", "a.npz", "--max", "0"],
        ["references", "build", "a.png", "-o", "a.npz", "--references", "b.npz"],
        ["references", "build", "a.png", "-o", "a.npz", "--occlusion", "smooth"],
    ],
)
def test_wrong_arguments_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == WRONG_USE


def test_info_names_versions_and_model_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == ALL_DONE
    said = capsys.readouterr().out
    for word in ("extreme3d_fast", "numpy", "onnxruntime", "CPU", "face_detection.onnx"):
        assert word in said


def test_info_names_gpus_and_what_runs_networks_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "extreme3d_fast._cuda", FakeCuda())
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="11.4"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    assert main(["info"]) == ALL_DONE
    said = capsys.readouterr().out
    assert "GPU 0: NVIDIA H200, 144 GB, compute capability 9.0" in said
    assert "networks can run with tensorrt 11.4" in said
    assert "not with tensorrt_rtx: tensorrt_rtx cannot be imported" in said


def test_info_says_that_operations_for_gpus_are_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "extreme3d_fast._cuda", None)
    assert main(["info"]) == ALL_DONE
    assert "CUDA operations: missing" in capsys.readouterr().out


class FakeCuda(ModuleType):
    """The module for GPUs where there is one GPU."""

    def __init__(self) -> None:
        super().__init__("extreme3d_fast._cuda")
        self.__file__ = "_cuda.so"

    def devices(self) -> list[tuple[str, int, int, int]]:
        return [("NVIDIA H200", 9, 0, 143_771_000_000)]


def test_demo_writes_glb_ply_and_turntable(run) -> None:
    assert run is not None
    assert main(["demo", photo("me.png", 1)]) == ALL_DONE
    assert written() == ["me.glb", "me.ply", "me_turntable.png"]


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_bar_grows_on_a_terminal() -> None:
    stream = Terminal()
    progress = cli.Progress(2, stream)
    progress.step()
    progress.say("a line")
    progress.step()
    progress.close()
    said = stream.getvalue()
    assert "[###############...............] 1/2" in said
    assert "[##############################] 2/2" in said
    assert "\r\x1b[Ka line\n" in said
    assert said.endswith("\r\x1b[K")


def test_progress_is_silent_elsewhere() -> None:
    stream = io.StringIO()
    progress = cli.Progress(5, stream)
    progress.step()
    progress.close()
    assert stream.getvalue() == ""


def test_face_saves_provenance_and_parts(face: Face, tmp_path: Path) -> None:
    face.save(tmp_path / "a.ply")
    assert b"property uchar provenance" in (tmp_path / "a.ply").read_bytes()[:600]


def test_turntable_starts_from_the_front(face: Face) -> None:
    frames = face.turntable(4, size=32)
    assert frames.shape == (4, 32, 32, 3)
    np.testing.assert_array_equal(frames[0], face.render(size=32))
    np.testing.assert_array_equal(frames[1], face.render(yaw=90, size=32))


@pytest.mark.parametrize("mode", ["auto", "networks", "landmarks"])
def test_options_reach_the_reconstructor(mode, face, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked = {}

    def reconstructor(**options: object) -> StandIn:
        asked.update(options)
        return StandIn(face)

    monkeypatch.setattr("extreme3d_fast.reconstructor.Reconstructor", reconstructor)
    arguments = ["--foundation", mode, "--threads", "3", "--detail", "none"]
    arguments += ["--runtime", "onnxruntime"]
    arguments += ["--bump-network", "a.onnx", "--references", "a.npz"]
    assert main(["reconstruct", photo("a.png", 1), "-o", "out", *arguments]) == ALL_DONE
    assert asked == {
        "device": "cpu",
        "runtime": "onnxruntime",
        "foundation": mode,
        "detail": "none",
        "bump_network": Path("a.onnx"),
        "occlusion": "reference",
        "references": Path("a.npz"),
        "threads": 3,
    }


@pytest.mark.parametrize("command", [["reconstruct", "a.png", "-o", "out"], ["demo"]], ids=" ".join)
@pytest.mark.parametrize(
    ("device", "said"), [("cuda", "no module _cuda"), ("tpu", "device should be one of cpu, cuda")]
)
def test_devices_that_are_not_there_are_wrong_use(
    command, device, said, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "extreme3d_fast._cuda", None)  # as in a build without it
    assert main([*command, "--device", device]) == WRONG_USE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("extreme3d: ")
    assert said in line


def test_missing_bump_network_is_wrong_use(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["reconstruct", photo("a.png", 1), "-o", "out", "--bump-network", "none.onnx"]
    assert main(arguments) == WRONG_USE
    assert "no network file at none.onnx" in capsys.readouterr().err


@pytest.mark.parametrize("threads", ["x", "0", "100000"])
def test_unusable_thread_counts_are_wrong_use(threads, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["reconstruct", "a.jpg", "-o", "out", "--threads", threads])
    assert stop.value.code == 2
    assert "from 1 to 256" in capsys.readouterr().err


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("extreme3d_fast ")


class BuilderStandIn:
    """Takes photos whose first pixel is red, refuses black ones."""

    metadata: ClassVar = {"head_model": "synthetic", "bump_network": "none 0"}

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def examine(self, photo: Path) -> Candidate:
        if load_image(photo)[0, 0, 0] == 0:
            return Candidate("covered")
        descriptor = self._rng.normal(size=128).astype(np.float32)
        return Candidate("", face=reference_face(self._rng), descriptor=descriptor)


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(cli, "make_reference_builder", lambda _: BuilderStandIn())
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: main(["references", "build", *arguments, "-o", "set.npz"])


def test_references_are_built_from_folders_and_counted(build, capsys) -> None:
    photo("in/a.png", 1), photo("in/deep/b.png", 0), photo("in/deep/c.png", 1)
    assert build("in", "--licence", "mine") == ALL_DONE
    assert len(ReferenceSet.load("set.npz")) == 2
    said = capsys.readouterr().out
    assert "set.npz: 2 faces of 3 photos" in said
    assert "1 refused: covered" in said
    assert main(["references", "info", "set.npz"]) == ALL_DONE
    said = capsys.readouterr().out
    for word in ("2 faces", "turned 0 to 15 degrees", "licence: mine", "another head model"):
        assert word in said


def test_unreadable_photos_do_not_stop_the_building(build, capsys) -> None:
    Path("text.jpg").write_text("hello")
    assert build("text.jpg", "missing.jpg", photo("a.png", 1)) == SOME_FAILED
    assert len(ReferenceSet.load("set.npz")) == 1
    errors = capsys.readouterr().err
    assert "text.jpg is not an image file" in errors
    assert "missing.jpg: there is no image file" in errors
    assert "2 of 3 photos failed" in errors


def test_a_face_that_no_set_can_hold_does_not_stop_the_building(build, monkeypatch, capsys) -> None:
    taken = BuilderStandIn.examine

    def examine(self: BuilderStandIn, photo: Path) -> Candidate:
        candidate = taken(self, photo)
        return replace(candidate, descriptor=np.zeros(128)) if photo.stem == "a" else candidate

    monkeypatch.setattr(BuilderStandIn, "examine", examine)
    assert build(photo("a.png", 1), photo("b.png", 1)) == SOME_FAILED
    assert len(ReferenceSet.load("set.npz")) == 1
    assert "a.png: `descriptor` should be finite and not 0" in capsys.readouterr().err


def test_building_stops_at_the_number_asked_for(build) -> None:
    assert build(*(photo(f"{i}.png", 1) for i in range(5)), "--max", "2") == ALL_DONE
    assert len(ReferenceSet.load("set.npz")) == 2


def test_nothing_is_written_where_no_photo_will_do(build, capsys) -> None:
    Path("set.npz").write_text("older")
    assert build(photo("a.png", 0)) == SOME_FAILED
    assert Path("set.npz").read_text() == "older"
    assert sorted(p.name for p in Path().iterdir()) == ["a.png", "set.npz"]
    said = capsys.readouterr()
    assert "no photo will do" in said.err
    assert "1 refused: covered" in said.out


def test_interrupted_building_leaves_the_older_set(build, monkeypatch, capsys) -> None:
    write_reference_set(Path("set.npz"), 3)

    def interrupt(*_: object) -> Candidate:
        raise KeyboardInterrupt

    monkeypatch.setattr(BuilderStandIn, "examine", interrupt)
    assert build(photo("a.png", 1)) == 130
    assert len(ReferenceSet.load("set.npz")) == 3
    assert "interrupted" in capsys.readouterr().err


def test_folder_without_photos_is_wrong_use(build, capsys, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    assert build("empty") == WRONG_USE
    assert "no image files in empty" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["missing.npz", "text.npz"])
def test_info_on_no_reference_set_is_wrong_use(file, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.npz").write_text("hello")
    assert main(["references", "info", file]) == WRONG_USE
    assert file in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "said"),
    [("keep.png", "should name an .npz file"), ("nowhere/set.npz", "no folder nowhere")],
)
def test_references_are_written_to_npz_files_in_folders_that_exist(
    output, said, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before = Path(photo("keep.png", 1)).read_bytes()
    assert main(["references", "build", "keep.png", "-o", output]) == WRONG_USE
    assert said in capsys.readouterr().err
    assert Path("keep.png").read_bytes() == before
