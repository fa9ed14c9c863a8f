"""train's runs: a run that was stopped and resumed is the run that was not."""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from perfect_networks import facing

from extreme3d_fast.camera import rotation_from_angles

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
from training_runs import assert_resumed_is_whole  # noqa: E402

sys.path.append(str(Path(__file__).parents[1] / "train"))
augment = importlib.import_module("augment")
dataset = importlib.import_module("dataset")
export_network = importlib.import_module("export_network")
networks = importlib.import_module("networks")
train_network = importlib.import_module("train_network")

TINY = networks.Settings((4, 4, 8, 8), (1, 1, 1, 1), stem=4)
STEPS = 4


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Photos of noise with labels, 24 to train with and 24 to judge by; of 8 persons each."""
    rng, n = np.random.default_rng(0), 48
    folder = tmp_path / "sets"
    folder.mkdir()
    for name in ("photos", "synthetic_00"):
        rotation = [rotation_from_angles(y, 0, 5) for y in rng.uniform(-70, 70, n)]
        np.savez(
            folder / f"{name}.npz",
            name=np.array([f"celeb/{i}.jpg" for i in range(n)]),
            person=np.array([f"{i // 3}" for i in range(n)]),
            val=np.arange(n) % 2 == 0,
            identity=rng.normal(size=(n, 99)).astype(np.float32),
            expression=rng.uniform(0, 1, (n, 52)).astype(np.float32),
            rotation=np.float32(rotation),
            translation=np.float32([facing(r)[:3, 3] for r in rotation]),
            **{f"weight_{k}": np.ones(n, np.float32) for k in ("identity", "expression", "pose")},
        )
        np.save(folder / f"{name}.npy", rng.integers(0, 256, (n, 192, 192, 3)).astype(np.uint8))
    return folder


@pytest.fixture
def occluders(tmp_path: Path) -> Path:
    cutout = np.random.default_rng(1).integers(0, 256, (20, 30, 4)).astype(np.uint8)
    for kind in augment.Occluders.KINDS:
        (tmp_path / "occluders" / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "occluders" / kind / "a.png"), cutout)
    return tmp_path / "occluders"


@pytest.fixture
def train(sets, occluders, monkeypatch):
    """Trains a tiny network for STEPS steps, saving each; `stop_at` breaks it off in that step."""
    monkeypatch.setitem(networks.SETTINGS, "tiny", TINY)
    monkeypatch.setattr(train_network, "draw_curves", lambda _: None)
    clock = itertools.count(step=1000.0)
    monkeypatch.setattr(train_network, "time", SimpleNamespace(time=lambda: next(clock)))
    follow = train_network.follow

    def run(task: str, folder: Path, stop_at: int = 0) -> dict:
        steps = itertools.count(1)

        def counted(*arguments):
            if next(steps) == stop_at:
                raise KeyboardInterrupt
            follow(*arguments)

        monkeypatch.setattr(train_network, "follow", counted)
        arguments = ["train_network.py", task, "--depth", "tiny", "--batch", "8", "--no-bf16"]
        arguments += ["--sets", str(sets), "--occluders", str(occluders), "--run", str(folder)]
        arguments += ["--samples", str(8 * STEPS), "--workers", "0", "--every", "2"]
        monkeypatch.setattr(sys, "argv", [*arguments, "--size", "64"])
        threads = torch.get_num_threads()
        try:
            train_network.main()
        finally:
            torch.set_num_threads(threads)
        return torch.load(folder / "checkpoint.pt", weights_only=True)

    return run


@pytest.mark.parametrize("task", ["pose", "foundation"])
def test_resumed_run_ends_with_the_same_numbers(train, tmp_path, task):
    assert_resumed_is_whole(
        lambda folder: train(task, folder),
        lambda folder: train(task, folder, stop_at=3),
        lambda folder: train(task, folder),
        tmp_path,
        STEPS,
    )


@pytest.mark.parametrize("task", ["pose", "foundation"])
def test_checkpoint_makes_the_network_again(train, tmp_path, task):
    saved = train(task, tmp_path)
    export_network.make(saved["settings"]).load_state_dict(saved["average"])


@pytest.mark.parametrize("task", ["pose", "foundation"])
def test_stream_of_samples_goes_on_from_any_step(sets, occluders, task):
    def batches(start: int, count: int) -> list:
        samples = dataset.Samples(sets, occluders, task, 64, 8, start, 5)
        return list(itertools.islice(samples, count))

    for late, want in zip(batches(2, 1), batches(0, 3)[2:], strict=True):
        for name, value in want.items():
            torch.testing.assert_close(late[name], value, rtol=0, atol=0, equal_nan=True)


def test_two_workers_make_in_turn_what_one_makes(sets, occluders, monkeypatch):
    want = list(itertools.islice(dataset.Samples(sets, occluders, "pose", 64, 8, 0, 5), 4))
    for worker in range(2):
        info = SimpleNamespace(id=worker, num_workers=2)
        monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda info=info: info)
        got = list(itertools.islice(dataset.Samples(sets, occluders, "pose", 64, 8, 0, 5), 2))
        for batch, same in zip(got, want[worker::2], strict=True):
            torch.testing.assert_close(batch["image"], same["image"], rtol=0, atol=0)


def test_weights_of_dlib_are_refused_for_another_network(monkeypatch, capsys):
    arguments = [
        "pose",
        "--sets",
        "a",
        "--occluders",
        "b",
        "--run",
        "c",
        "--dlib",
        "d",
        "--depth",
        "resnet101",
    ]
    monkeypatch.setattr(sys, "argv", ["train_network.py", *arguments])
    with pytest.raises(SystemExit):
        train_network.arguments()
    assert "--dlib has weights for --depth dlib29" in capsys.readouterr().err


def test_sampling_weights_share_out_as_asked(sets):
    data = dataset.Data(sets, validation=False)
    weights = dataset.sampling_weights(data, 0.3)
    assert weights.sum() == pytest.approx(1)
    assert weights[~data.real[data.rows]].sum() == pytest.approx(0.3)
    assert not data.val[data.rows].any()


def test_folders_without_sets_or_occluders_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="no training sets"):
        dataset.Data(tmp_path, validation=False)
    with pytest.raises(SystemExit, match="no occluders"):
        augment.Occluders(tmp_path)
