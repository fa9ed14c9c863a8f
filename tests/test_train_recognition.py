"""train's recogniser of bump maps: maps unrolled alike in every pose, runs, files."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from extreme3d_fast.camera import Camera, rotation_from_angles
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.rasterize import interpolate, rasterize
from extreme3d_fast.session import Session

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
from training_runs import assert_resumed_is_whole  # noqa: E402

sys.path.append(str(Path(__file__).parents[1] / "train"))
bump_maps = importlib.import_module("bump_maps")
recognition = importlib.import_module("train_recognition")
train_network = importlib.import_module("train_network")

CAMERA = Camera(1500, 1500, 250, 250, 500, 500)
STEPS = 4


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return HeadModel.load()


@pytest.fixture(scope="module")
def unrolling(model):
    return recognition.Unrolling(recognition.Atlas(model))


def pose(yaw: float) -> np.ndarray:
    out = np.eye(4, dtype=np.float32)
    out[:3, :3] = rotation_from_angles(yaw)
    out[:3, 3] = [0, 0, 900]
    return out


def row(model: HeadModel, yaw: float, relief: np.ndarray) -> dict[str, np.ndarray]:
    """A row of bump_maps.py: a head with relief (V,) mm on its vertices."""
    values = {
        "identity": np.zeros(model.n_identity, np.float32),
        "expression": np.zeros(model.n_expression, np.float32),
        "camera": np.array(CAMERA.pinhole),
        "camera_from_head": pose(yaw),
    }
    skin = model.vertices()[: model.skin_vertex_count]
    at = skin @ pose(yaw)[:3, :3].T + pose(yaw)[:3, 3]
    raster = rasterize(at.astype(np.float32), model.faces, CAMERA)
    return values | {"bump": interpolate(raster, relief.astype(np.float32), model.faces)}


def test_relief_comes_to_the_same_place_in_every_pose(model, unrolling):
    skin = model.vertices()[: model.skin_vertex_count]
    relief = model.face_weight * np.sin(skin[:, 1] / 8) * np.cos(skin[:, 0] / 8)  # waves of 50 mm
    maps = []
    for yaw in (0.0, 25.0):
        rendered = row(model, yaw, relief)
        points = recognition.projected(model, rendered)
        bump = torch.from_numpy(rendered["bump"])
        maps.append(unrolling(bump[None], torch.from_numpy(points)[None])[0].numpy())
    (front, front_seen), (turned, turned_seen) = maps
    assert front_seen[unrolling.inside.view(front.shape).numpy() > 0].mean() > 0.9
    assert 0.5 < turned_seen.sum() / front_seen.sum() < 1
    both = (front_seen > 0) & (turned_seen > 0)
    assert front[both].std() > 0.5
    # not all that faces the camera is seen: the nose hides a part of the cheek
    assert np.median(np.abs(front - turned)[both]) < 0.05
    assert np.corrcoef(front[both], turned[both])[0, 1] > 0.95


def test_loss_falls_when_embeddings_come_near_their_teachers():
    teacher = torch.eye(4)
    batch = {"descriptor": teacher, "person": torch.tensor([0, 1, -1, -1])}
    loss = recognition.RecognitionLoss()
    good = loss((teacher, teacher[:, :2]), batch)
    bad = loss((teacher.flip(0), teacher.flip(0)[:, :2]), batch)
    assert float(good["distance"]) == pytest.approx(0)
    assert all(float(good[k]) < float(bad[k]) for k in good)


def test_another_photo_of_the_same_person_is_no_contrast():
    teacher = torch.eye(2)[[0, 0]]
    batch = {"descriptor": teacher, "person": torch.tensor([0, 0])}
    parts = recognition.RecognitionLoss()((teacher, torch.zeros(2, 1)), batch)
    assert float(parts["contrast"]) < 1e-6


def test_changed_maps_stay_maps():
    maps = torch.zeros(6, 2, recognition.ROWS, recognition.COLUMNS)
    maps[:, 0, 40:80, 30:80], maps[:, 1, 20:100, 20:90] = 1.0, 1.0
    out = recognition.changed(maps, np.random.default_rng(0))
    assert out.shape == maps.shape
    assert 0 <= float(out[:, 1].min()) <= float(out[:, 1].max()) <= 1
    # the square is still there, moved by a few texels and of another strength
    assert (out[:, 0, 50:70, 45:65] > 0.3).all()
    assert (out[:, 0, :20] == 0).all()


@pytest.fixture(scope="module")
def stored(model, tmp_path_factory):
    """Maps of three training persons, two held out, and one other photo; random descriptors."""
    folder = tmp_path_factory.mktemp("maps")
    training, held_out = (
        [f"P{i}" for i in range(99) if bump_maps.is_held_out(f"P{i}") == out][:count]
        for out, count in ((False, 3), (True, 2))
    )
    rng = np.random.default_rng(0)
    rows = []
    for person in [*training, *held_out]:
        for frame in (0, 1):
            name = f"youtube_faces/{person}_{frame}0.jpg"
            values = row(model, 0.0, rng.normal(0, 0.3, model.skin_vertex_count))
            half = values["bump"].reshape(250, 2, 250, 2).mean((1, 3)).astype(np.float16)
            rows.append(values | {"bump": half, "name": name, "person": person})
    rows.append(rows[0] | {"name": "celebamask/1.jpg", "person": "celebamask/1.jpg"})
    np.savez(folder / "000.npz", **{k: np.array([r[k] for r in rows]) for k in bump_maps.FIELDS})
    names = np.array([r["name"] for r in rows])
    np.savez(
        folder.parent / "d.npz",
        name=names,
        descriptor=rng.normal(size=(len(names), recognition.SIZE)).astype(np.float32),
    )
    return folder, folder.parent / "d.npz"


def test_held_out_persons_are_never_drawn(stored, unrolling):
    data = recognition.Maps(*stored, unrolling)
    assert data.held_out.any()
    assert (data.person.numpy()[data.held_out] == -1).all()
    samples = recognition.Batches(data, 0.5, 8, 0, 0)
    assert not data.held_out[samples.rows].any()
    assert len(next(iter(samples))["maps"]) == 8


def test_photos_of_a_person_share_a_teacher(stored, unrolling):
    data = recognition.Maps(*stored, unrolling)
    mine = data.descriptor[data.person == 0]
    assert len(mine) == 2
    torch.testing.assert_close(mine[0], mine[1])
    torch.testing.assert_close(data.descriptor.norm(dim=1), torch.ones(len(data.name)))


@pytest.fixture
def train(stored, monkeypatch):
    """Trains for STEPS steps, saving each; `stop_at` breaks it off in that step."""
    monkeypatch.setattr(train_network, "draw_curves", lambda _: None)
    clock = itertools.count(step=1000.0)
    monkeypatch.setattr(train_network, "time", SimpleNamespace(time=lambda: next(clock)))
    follow = train_network.follow

    def run(folder: Path, stop_at: int = 0, *more: str) -> dict:
        torch.manual_seed(0)
        steps = itertools.count(1)

        def counted(*arguments):
            if next(steps) == stop_at:
                raise KeyboardInterrupt
            follow(*arguments)

        monkeypatch.setattr(train_network, "follow", counted)
        maps, descriptors = map(str, stored)
        arguments = ["train_recognition.py", "--maps", maps, "--descriptors", descriptors, "--run"]
        arguments += [str(folder), "--batch", "4", "--samples", str(4 * STEPS), "--every", "2"]
        monkeypatch.setattr(sys, "argv", [*arguments, "--no-bf16", *more])
        recognition.main()
        return torch.load(folder / "checkpoint.pt", weights_only=True)

    return run


def test_resumed_run_ends_with_the_same_numbers(train, tmp_path):
    last = assert_resumed_is_whole(train, lambda folder: train(folder, 3), train, tmp_path, STEPS)
    assert {"distance", "contrast", "person", "near", "auc"} <= set(last)


def test_file_says_what_the_network_says(train, model, tmp_path, capsys):
    path = tmp_path / "recogniser.onnx"
    train(tmp_path, 0, "--out", str(path))
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["bytes"] < 3e6
    assert said["max_difference"] < 0.01  # weights are float16
    session = Session(path, threads=1)
    assert session.metadata["head_model"] == model.fingerprint
    values = row(model, 10.0, model.face_weight)
    points = recognition.projected(model, values)[None]
    (found,) = session.run({"bump": values["bump"][None], "points": points})["descriptor"]
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


def test_folder_without_maps_is_refused(tmp_path, unrolling):
    with pytest.raises(SystemExit, match="no bump maps"):
        recognition.Maps(tmp_path, tmp_path / "d.npz", unrolling)
