"""train's bump network: Table 2, Eq. 5, windows that keep what they say, runs, files."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from extreme3d_fast.bump import bump_from_authors_map
from extreme3d_fast.session import Session

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
from training_runs import assert_resumed_is_whole  # noqa: E402

sys.path.append(str(Path(__file__).parents[1] / "train"))
bump_dataset = importlib.import_module("bump_dataset")
bump_loss = importlib.import_module("bump_loss")
bump_network = importlib.import_module("bump_network")
convert_authors = importlib.import_module("convert_authors")
convert_bump = importlib.import_module("convert_authors_bump")
export_network = importlib.import_module("export_network")
pasting = importlib.import_module("pasting")
relief_store = importlib.import_module("relief_store")
train_bump = importlib.import_module("train_bump")
train_network = importlib.import_module("train_network")

functional = torch.nn.functional
SIDE = relief_store.WINDOW
Y, X = np.mgrid[:SIDE, :SIDE].astype(np.float32)
RADIUS = np.hypot((X - 191.5) / 100, (Y - 191.5) / 130)
FACE = RADIUS < 1
STEPS = 4


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def window(seed: int = 0) -> dict[str, np.ndarray]:
    """A window as the store has it: a bowl for a face, with smooth relief that darkens it."""
    rng = np.random.default_rng(seed)
    relief = cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE)).astype(np.float32), (0, 0), 5)
    relief *= 0.3 / relief.std() * np.clip(5 * (1 - RADIUS), 0, 1)  # fades out at the border
    half = np.stack([X - 191.5, Y - 191.5], 2)[::2, ::2] / 300 + 0.5 / 300
    face = FACE[::2, ::2]
    shade = 140 - 100 * relief + rng.normal(0, 2, (SIDE, SIDE))
    return {
        "image": np.where(FACE, shade, 30).clip(0, 255).astype(np.uint8)[..., None].repeat(3, 2),
        "normal": np.rint(127 * half * face[..., None]).astype(np.int8),
        "weight": (255 * face).astype(np.uint8),
        "mask": FACE.astype(np.uint8),
        "bump": (relief * FACE).astype(np.float16),
        "trust": (255 * FACE).astype(np.uint8),
        "detail_only": np.float32(0),
    }


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Six windows each of photos (the last of which teaches nothing) and of profiles."""
    folder = tmp_path / "sets"
    for name in ("photos", "profiles"):
        writer = relief_store.SetWriter(folder / name, 6)
        for i in range(6):
            w = window(i)
            if i == 5:
                w["mask"][:], w["trust"][:] = relief_store.UNKNOWN, 0
            full = cv2.resize(w["normal"].astype(np.float32) / 127, (SIDE, SIDE))
            writer.write(
                i,
                image=w["image"],
                normal=full,
                weight=FACE.astype(np.float32),
                depth=np.where(FACE, 500.0, np.inf),
                mask=w["mask"],
                bump=w["bump"] if name == "photos" else None,
                trust=w["trust"] / 255 if name == "photos" else None,
            )
        writer.finish(
            name=[f"{name}/{i}" for i in range(6)],
            val=np.arange(6) % 3 == 0,
            mm_per_pixel=np.full(6, 0.55, np.float32),
        )
    return folder


@pytest.fixture
def cutouts(tmp_path: Path) -> Path:
    """Cut-outs of noise, some of them held out."""
    noise = np.random.default_rng(1).integers(0, 256, (60, 80, 4)).astype(np.uint8)
    noise[..., 3] = 255
    for kind in ("hands", "glasses", "masks", "objects", "hats"):
        (tmp_path / "occluders" / kind).mkdir(parents=True)
        for i in range(20):
            cv2.imwrite(str(tmp_path / "occluders" / kind / f"{i}.png"), noise)
    return tmp_path / "occluders"


# === Network ===


def weights_of(name: str) -> list[tuple[int, ...]]:
    network = bump_network.BumpNetwork(name)
    return [tuple(p.shape) for key, p in network.named_parameters() if key.endswith("weight")]


def test_networks_without_normals_see_the_photo_alone():
    batch = bump_dataset.collate([bump_dataset.clean(window())])
    x = bump_dataset.inputs(batch)
    assert x.shape == (1, 5, SIDE, SIDE)
    torch.testing.assert_close(bump_dataset.inputs(batch, 3), x[:, :3])
    torch.testing.assert_close((x[0, :3, 9, 9] + 1) * 127.5, batch["image"][0, 9, 9].float())
    torch.testing.assert_close(x[0, 3:, 180, 120] * 127, batch["normal"][0, 180, 120].float())


def test_papers_settings_are_table_2_with_a_second_last_block():
    encoder = [(3, 16), (16, 16)]
    for c in (16, 32, 64, 128, 256, 512):
        encoder += [(c, c), (c, 2 * c), (2 * c, 2 * c)]
    decoder = [[(2 * c, c), (2 * c, c), (c, c)] for c in (16, 32, 64, 128, 256, 512)]
    want = encoder + [*itertools.chain(*decoder)] + 2 * [(16, 1)] + decoder[0]
    assert sorted(weights_of("paper")) == sorted((b, a, 3, 3) for a, b in want)


@pytest.mark.parametrize("name", ["fast", "paper"])
def test_maps_have_the_size_of_the_input(name):
    network = bump_network.BumpNetwork(name).eval()
    with torch.no_grad():
        bump, logit = network(torch.randn(1, network.settings.inputs, 128, 64))
    assert bump.shape == (1, 1, 128, 64)
    assert logit.shape == ((1, 1, 128, 64) if name == "paper" else (1, 1, 64, 32))
    assert network.settings.stride == 64
    assert float(bump.abs().max()) < 1  # it starts near no relief


def test_zeros_round_the_photo_stand_for_the_authors_padding():
    """They pad 500 px by 7 and let the first convolution shrink the sum to 512."""
    photo = torch.randn(1, 3, 500, 500)
    first = bump_network.BumpNetwork("paper").encoder[0][0][0]
    with torch.no_grad():
        theirs = functional.conv2d(photo, first.weight, first.bias, padding=7)
        torch.testing.assert_close(first(functional.pad(photo, (6, 6, 6, 6))), theirs)
    assert theirs.shape == (1, 16, 512, 512)


# === Loss ===


def batch_of(
    bump: np.ndarray, trust: float = 1.0, mask: int = 1, *, detail_only: bool = False
) -> dict[str, torch.Tensor]:
    bump = torch.from_numpy(np.float32(bump))[None]
    return {
        "bump": bump,
        "trust": torch.full(bump.shape, round(255 * trust), dtype=torch.uint8),
        "mask": torch.full(bump.shape, mask, dtype=torch.uint8),
        "detail_only": torch.tensor([float(detail_only)]),
    }


def test_loss_of_a_plane_is_eq_5():
    """|Δ| of a x + b y + c over a grid, and |a| + |b| for the differences."""
    n, a, b = 8, 0.3, -0.2
    y, x = np.mgrid[:n, :n]
    target = np.random.default_rng(0).normal(size=(n, n)).astype(np.float32)
    got = torch.from_numpy(np.float32(target + a * x + b * y + 5))[None, None]
    out = (got, torch.zeros(1, 1, n, n))
    losses = bump_loss.BumpLoss(gradient=1.0)(out, batch_of(target))
    assert float(losses["bump"]) == pytest.approx(np.abs(a * x + b * y + 5).mean(), rel=1e-5)
    # there are n - 1 differences to n pixels of a row
    assert float(losses["gradient"]) == pytest.approx((abs(a) + abs(b)) * (n - 1) / n, rel=1e-4)
    assert float(bump_loss.BumpLoss(gradient=3.0)(out, batch_of(target))["gradient"]) == (
        pytest.approx(3 * float(losses["gradient"]))
    )
    assert "gradient" not in bump_loss.BumpLoss(gradient=0.0)(out, batch_of(target))


def test_relief_is_learned_only_where_it_is_trusted():
    batch = batch_of(np.ones((8, 8)))
    batch["trust"][:, :, :4] = 0
    got = torch.full((1, 1, 8, 8), 3.0, requires_grad=True)
    losses = bump_loss.BumpLoss()((got, torch.zeros(1, 1, 8, 8)), batch)
    assert losses["bump"].item() == pytest.approx(2.0)
    sum(losses.values()).backward()
    assert not got.grad[..., :4].any()
    assert (got.grad[..., 4:] > 0).any()


def test_what_hides_the_face_is_pulled_flat_gently():
    batch = batch_of(np.full((8, 8), 1.0), trust=0.0, mask=0)
    got = torch.full((1, 1, 8, 8), -2.0, requires_grad=True)
    bump_loss.BumpLoss()((got, torch.zeros(1, 1, 8, 8)), batch)["bump"].backward()
    assert (got.grad < 0).all()  # towards 0, whatever the target's file says there
    trusted = batch_of(np.zeros((8, 8)))
    weight = batch_of(np.zeros((8, 8)), trust=0.0, mask=0)
    for key in ("trust", "mask"):
        trusted[key][:, :, 4:] = weight[key][:, :, 4:]
    got = torch.full((1, 1, 8, 8), 1.0, requires_grad=True)
    bump_loss.BumpLoss()((got, torch.zeros(1, 1, 8, 8)), trusted)["bump"].backward()
    share = float(got.grad[..., 6].abs().sum() / got.grad[..., 1].abs().sum())
    assert share == pytest.approx(bump_loss.OCCLUDED_WEIGHT, rel=1e-4)


def test_photos_say_little_of_form_and_all_of_detail():
    n = 64
    y, x = np.mgrid[:n, :n]
    loss, nothing = bump_loss.BumpLoss(gradient=0.0), np.zeros((n, n))
    for error, share in (
        (np.ones((n, n)), bump_loss.FORM_WEIGHT),
        (1.0 - 2 * ((x + y) % 2), 1.0),  # no form: the average of any cell is 0
    ):
        out = (torch.from_numpy(np.float32(error))[None, None], torch.zeros(1, 1, n, n))
        photo, synthetic = (
            float(loss(out, batch_of(nothing, detail_only=d))["bump"]) for d in (True, False)
        )
        assert photo == pytest.approx(share * synthetic, rel=1e-4)


def test_unknown_pixels_teach_no_mask():
    mask = torch.ones(1, 16, 16, dtype=torch.uint8)
    mask[:, :, 8:] = bump_loss.UNKNOWN
    logit = torch.zeros(1, 1, 16, 16, requires_grad=True)
    loss = bump_loss.mask_loss(logit, mask)
    assert loss.item() == pytest.approx(np.log(2), rel=1e-5)
    loss.backward()
    assert (logit.grad[..., :8] < 0).all()
    assert not logit.grad[..., 8:].any()
    # no border where the mask merely ends
    assert float(logit.grad[0, 0, :, :8].std()) == pytest.approx(0, abs=1e-9)


def test_borders_of_the_mask_weigh_more():
    mask = torch.zeros(1, 32, 32, dtype=torch.uint8)
    mask[:, :, 16:] = 1
    logit = torch.zeros(1, 1, 32, 32, requires_grad=True)
    bump_loss.mask_loss(logit, mask).backward()
    push = logit.grad[0, 0, 5].abs()
    at = [16 - bump_loss.BORDER, 15, 16, 15 + bump_loss.BORDER]
    np.testing.assert_allclose(push[at] / push[0], 1 + bump_loss.BORDER_WEIGHT, rtol=1e-4)
    assert float(push[12]) == pytest.approx(float(push[0]))


def test_mask_at_half_size_is_judged_by_its_share():
    mask = torch.zeros(1, 4, 4, dtype=torch.uint8)
    mask[:, 0, 0], mask[:, 3, 2:] = 1, bump_loss.UNKNOWN
    target, known = bump_loss.mask_target(mask, (2, 2))
    np.testing.assert_allclose(target[0, 0], [[0.25, 0], [0, 0]])
    np.testing.assert_allclose(known[0, 0], [[1, 1], [1, 0.5]])


def test_a_few_steps_learn_a_few_crops():
    network = bump_network.BumpNetwork("fast")
    rng = np.random.default_rng(0)
    made = [bump_dataset.make(rng, window(i), 128, None) for i in range(2)]
    batch = bump_dataset.collate(made)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    loss, totals = bump_loss.BumpLoss(), []
    for _ in range(16):
        parts = loss(network(bump_dataset.inputs(batch)), batch)
        optimizer.zero_grad()
        sum(parts.values()).backward()
        optimizer.step()
        totals.append(float(sum(parts.values()).detach()))
    assert totals[-1] < 0.5 * totals[0]


# === Crops of windows ===


def test_window_as_it_is_stays_as_it_is():
    w = window()
    out = bump_dataset.clean(w)
    for name in ("image", "mask", "trust"):
        np.testing.assert_array_equal(out[name], w[name])
    np.testing.assert_allclose(out["bump"], w["bump"], atol=1e-6)
    # the foundation's normals are stored at half size
    np.testing.assert_allclose(
        out["normal"][100:300:2, 150:250:2], (w["normal"][50:150, 75:125]), atol=0.6
    )


MIRROR = np.array([[-1.0, 0, SIDE - 1], [0, 1, 0]])


def test_mirrored_twice_is_as_before_and_normals_change_their_sign():
    w = window()
    once = bump_dataset.transformed(w, MIRROR, SIDE)
    for name in ("image", "bump", "mask", "trust"):
        np.testing.assert_allclose(once[name], w[name].astype(np.float32)[:, ::-1], atol=1e-4)
    plain = bump_dataset.transformed(w, np.eye(2, 3), SIDE)["normal"]
    np.testing.assert_allclose(once["normal"], plain[:, ::-1] * [-1, 1], atol=1e-3)
    half = cv2.resize(once["normal"], (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)
    again = dict(once, normal=np.rint(half).astype(np.int8))
    twice = bump_dataset.transformed(again, MIRROR, SIDE)
    inside = (slice(120, 260), slice(140, 240))
    np.testing.assert_allclose(twice["normal"][inside], plain[inside], atol=1.5)  # of 127
    np.testing.assert_allclose(twice["bump"], w["bump"], atol=1e-4)


def test_slopes_of_the_relief_turn_and_mirror_with_the_normals():
    """A tilted plane for relief, and a foundation with that very normal: they stay alike."""
    slope = np.array([0.2, -0.1])  # mm per px
    w = window()
    w["bump"] = ((X - 191.5) * slope[0] + (Y - 191.5) * slope[1]).astype(np.float32)
    w["trust"][:] = 255
    w["normal"] = np.broadcast_to(np.int8(np.rint(127 * slope)), (192, 192, 2)).copy()
    scale, roll = 0.85, np.radians(15)
    turn = scale * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    turn = turn @ np.diag([-1, 1])
    m = np.column_stack([turn, 127.5 - turn @ [191.5, 191.5]])
    out = bump_dataset.transformed(w, m, 256)
    inside = (slice(100, 150), slice(100, 150))
    gy, gx = np.gradient(out["bump"])
    np.testing.assert_allclose(gx[inside] * 127, out["normal"][inside][..., 0], atol=0.6)
    np.testing.assert_allclose(gy[inside] * 127, out["normal"][inside][..., 1], atol=0.6)


def test_a_step_in_depth_is_not_trusted_and_a_slope_is():
    w = window()
    w["trust"][:] = 255
    w["bump"] = (0.2 * X + 2 * (X > 200)).astype(np.float32)
    trust = bump_dataset.transformed(w, np.eye(2, 3), SIDE)["trust"]
    assert not trust[:, 199:203].any()
    assert (trust[:, 5:195] == 255).all()
    assert (trust[:, 206:-5] == 255).all()


def test_nothing_is_known_beyond_the_window():
    m = np.array([[1.0, 0, 300], [0, 1, 0]])
    out = bump_dataset.transformed(window(), m, SIDE, fill=127)
    assert (out["mask"][:, :299] == relief_store.UNKNOWN).all()
    assert not out["trust"][:, :299].any()
    assert (out["image"][:, :299] == 127).all()


@pytest.mark.parametrize("size", [128, 256, 384])
def test_crops_show_the_face_and_stay_inside(size):
    w, rng = window(), np.random.default_rng(0)
    for _ in range(20):
        m = bump_dataset.placement(rng, w["weight"], size)
        mask = bump_dataset.transformed(w, m, size)["mask"]
        assert (mask == 1).mean() > 0.1
        assert (mask == relief_store.UNKNOWN).mean() < 0.45
        scale = np.sqrt(abs(np.linalg.det(m[:, :2])))
        assert 0.85 < scale < 1.18


def test_covered_pixels_lose_relief_and_face(cutouts):
    occluders = pasting.Occluders(cutouts)
    w, rng = window(), np.random.default_rng(0)
    changed = 0
    for _ in range(10):
        out = bump_dataset.clean(w)
        bump_dataset.paste(rng, out, w["weight"], np.eye(2, 3), occluders)
        same = (out["image"] == w["image"]).all(2)
        assert (same | (out["trust"] == 0) | ~FACE).mean() > 0.9  # shadows fall beside
        assert not out["trust"][(out["mask"] == 0)].any()
        assert (out["mask"] <= w["mask"]).all()
        changed += int((out["mask"] != w["mask"]).sum())
    assert changed > 1000


def test_a_window_without_known_face_learns_no_mask_from_what_is_pasted(cutouts):
    occluders, w = pasting.Occluders(cutouts), window()
    w["mask"][:] = relief_store.UNKNOWN
    trust = []
    for seed in range(12):
        out = bump_dataset.make(np.random.default_rng(seed), w, 128, occluders)
        assert (out["mask"] == relief_store.UNKNOWN).all()
        trust.append(float((out["trust"] > 0).mean()))
    assert max(trust) > 0.5


def test_sampling_weights_share_out_among_the_kinds_there_are():
    kind = np.array(["photos"] * 3 + ["masked"])
    weights = bump_dataset.sampling_weights(kind, {"photos": 0.3, "masked": 0.1, "synthetic": 5.0})
    np.testing.assert_allclose(weights, [0.25, 0.25, 0.25, 0.25])
    with pytest.raises(SystemExit, match="no windows"):
        bump_dataset.sampling_weights(kind, {"profiles": 1.0})


def batches(sets: Path, cutouts: Path, start: int, count: int) -> list:
    shares = {"photos": 0.5, "profiles": 0.5}
    crops = bump_dataset.Crops(sets, cutouts, shares, 128, 3, start, 5)
    threads = torch.get_num_threads()
    try:
        return list(itertools.islice(crops, count))
    finally:
        torch.set_num_threads(threads)


def test_stream_goes_on_from_any_step_and_skips_what_teaches_nothing(sets, cutouts):
    whole = batches(sets, cutouts, 0, 6)
    for late, want in zip(batches(sets, cutouts, 2, 4), whole[2:], strict=True):
        for name, value in want.items():
            torch.testing.assert_close(late[name], value, rtol=0, atol=0)
    for batch in whole:
        taught = (batch["mask"] != relief_store.UNKNOWN) | (batch["trust"] > 0)
        assert taught.flatten(1).any(1).all()
        assert batch["image"].shape[1] % 64 == 0


def test_windows_that_all_teach_nothing_are_refused(sets, monkeypatch):
    monkeypatch.setattr(bump_dataset, "MAX_MISSES", 5)
    for name in ("photos", "profiles"):
        maps, _ = relief_store.open_set(sets / name, "r+")
        maps["trust"][:], maps["mask"][:] = 0, relief_store.UNKNOWN
        for m in maps.values():
            m.flush()
    crops = bump_dataset.Crops(sets, None, {"photos": 1.0}, 128, 2, 0, 0)
    with pytest.raises(RuntimeError, match="no window has a target or a mask"):
        next(iter(crops))


def test_two_workers_make_in_turn_what_one_makes(sets, cutouts, monkeypatch):
    want = batches(sets, cutouts, 0, 4)
    for worker in range(2):
        info = SimpleNamespace(id=worker, num_workers=2)
        monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda info=info: info)
        for batch, same in zip(batches(sets, cutouts, 0, 2), want[worker::2], strict=True):
            torch.testing.assert_close(batch["image"], same["image"], rtol=0, atol=0)


def test_a_folder_without_sets_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no sets"):
        bump_dataset.Windows(tmp_path, validation=False)


# === Runs ===


@pytest.fixture
def train(sets, cutouts, monkeypatch):
    """Trains a tiny network for STEPS steps, saving each; `stop_at` breaks it off in that step."""
    monkeypatch.setattr(train_network, "draw_curves", lambda _: None)
    clock = itertools.count(step=1000.0)
    monkeypatch.setattr(train_network, "time", SimpleNamespace(time=lambda: next(clock)))
    follow = train_network.follow

    def run(folder: Path, stop_at: int = 0, *more: str) -> dict:
        steps = itertools.count(1)

        def counted(*arguments):
            if next(steps) == stop_at:
                raise KeyboardInterrupt
            follow(*arguments)

        monkeypatch.setattr(train_network, "follow", counted)
        arguments = ["train_bump.py", "--depth", "tiny", "--batch", "2", "--no-bf16", "--size"]
        arguments += ["64", "--sets", str(sets), "--occluders", str(cutouts), "--run", str(folder)]
        arguments += ["--samples", str(2 * STEPS), "--workers", "0", "--every", "2", *more]
        monkeypatch.setattr(sys, "argv", arguments)
        threads = torch.get_num_threads()
        try:
            train_bump.main()
        finally:
            torch.set_num_threads(threads)
        return torch.load(folder / "checkpoint.pt", weights_only=True)

    return run


def test_resumed_run_ends_with_the_same_numbers(train, tmp_path):
    last = assert_resumed_is_whole(
        lambda folder: train(folder, 0, "--preview", str(tmp_path / "preview.png")),
        lambda folder: train(folder, 3),
        train,
        tmp_path,
        STEPS,
    )
    assert {"photos_mm", "photos_degrees", "photos_iou", "profiles_iou"} <= set(last)
    assert "profiles_mm" not in last  # they have no relief
    assert len(last["photos_iou"]) == 2
    assert cv2.imread(str(tmp_path / "preview.png")) is not None


def test_checkpoint_makes_the_network_again_and_the_file(train, tmp_path, monkeypatch, capsys):
    train(tmp_path)
    arguments = [str(tmp_path / "checkpoint.pt"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["export_network.py", *arguments])
    export_network.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["file"] == "bump.onnx"
    session = Session(tmp_path / "bump.onnx", threads=1)
    assert session.metadata["channels"] == "5"
    assert session.metadata["samples"] == str(2 * STEPS)


def test_figures_of_the_truth_are_zero_and_of_nothing_its_size(sets):
    judge = train_bump.Validation(
        SimpleNamespace(sets=sets, occluders=None, bf16=False, preview=None), torch.device("cpu")
    )
    here = torch.from_numpy(judge.kind == "photos")
    truth, weight = judge.batch["bump"], judge.batch["trust"].float() / 255
    figures = judge.relief(truth, here)
    for name, (ours, nothing) in figures.items():
        assert ours == pytest.approx(0, abs=0.03), name  # degrees: arc cosines near 1
        assert nothing > 0.02, name
    size = (truth.abs() * weight)[here].sum() / weight[here].sum()
    assert figures["mm"][1] == pytest.approx(float(size), abs=1e-4)
    overlap = train_bump.overlaps((judge.batch["mask"] == 1).float(), judge.batch["mask"])
    np.testing.assert_allclose(overlap[torch.isfinite(overlap)], 1)


def test_normals_of_a_sphere_are_found_whether_in_foundation_or_relief():
    """Depth -sqrt(r² - x² - y²): once in the foundation alone, once in a plane's bump map."""
    mm, radius = 0.5, 60.0
    y, x = (np.mgrid[:40, :40] - 19.5) * mm
    true = np.stack([x, y], 2) / radius
    # differences to the next pixel belong half a pixel on
    middle = torch.from_numpy(true + 0.5 * mm / radius).float()[:-1, :-1]
    depth = torch.from_numpy(-np.sqrt(radius**2 - x**2 - y**2)).float()
    got = train_bump.normals(torch.zeros(40, 40, 2), depth, torch.tensor(mm))
    np.testing.assert_allclose(got[..., 0], middle[..., 0], atol=2e-3)
    np.testing.assert_allclose(got[..., 1], middle[..., 1], atol=2e-3)
    flat = train_bump.normals(torch.from_numpy(true).float(), torch.zeros(40, 40), torch.tensor(mm))
    np.testing.assert_allclose(flat[..., :2], true[:-1, :-1], atol=1e-5)
    assert (flat[..., 2] < 0).all()  # towards the camera


# === Files ===


def trained(settings) -> torch.nn.Module:
    """A network with statistics and weights that are not those of the start."""
    network = bump_network.BumpNetwork(settings)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(2, network.settings.inputs, 64, 64))
        network.bump_last.weight *= 40
    return network.eval()


SMALL = dataclasses.replace(
    bump_network.PAPER, channels=(4, 4, 8, 8, 8, 8, 8), encoder=(2,) * 7, decoder=(2,) * 6
)


@pytest.mark.parametrize("settings", ["fast", SMALL], ids=["fast", "small paper"])
def test_exported_file_is_what_the_package_loads_and_gives_the_same_numbers(settings, tmp_path):
    network = trained(settings)
    shipped = export_network.ShippedBump(network).eval()
    path = tmp_path / "bump.onnx"
    metadata = {"name": "bump", "version": "1", "colour_order": "RGB", "licence": "x"}
    metadata |= export_network.bump_metadata(network)
    channels = network.settings.inputs
    export_network.export_maps(shipped, path, channels, 64, metadata)
    exact = export_network.compare_maps(shipped, path, ["bump", "mask"])
    assert max(exact.values()) < 1e-4, exact
    size = path.stat().st_size
    export_network.shrink_weights(path, "float16", smallest=256)
    rounded = export_network.compare_maps(shipped, path, ["bump", "mask"])
    assert max(rounded.values()) < 0.01, rounded  # float16 has 11 bits
    assert path.stat().st_size < size
    session = Session(path, threads=1)
    session.expect(
        inputs={"image": (1, channels, None, None)},
        outputs={"bump": (1, 1, None, None), "mask": (1, 1, None, None)},
    )
    image = torch.randn(1, channels, 64, 192)
    got = session.run({"image": image.numpy()})
    with torch.no_grad():
        bump, logit = network(image)
        mask = functional.interpolate(logit.sigmoid(), bump.shape[2:], mode="bilinear")
    np.testing.assert_allclose(got["bump"], bump, atol=0.01)
    np.testing.assert_allclose(got["mask"], mask, atol=0.01)
    assert np.abs(got["bump"]).max() > 0.1


# === The authors' weights ===

BLOCKS = (1, 16, 32, 64, 128, 256, 512, 1024)


@pytest.fixture(scope="module")
def authors_state() -> dict[str, torch.Tensor]:
    """Random weights under the names of the release."""
    generator = torch.Generator().manual_seed(0)
    state = {}

    def put(name: str, before: int, after: int, gain: float = 2.0) -> None:
        weight = torch.randn(after, before, 3, 3, generator=generator)
        state[f"Gnet.{name}.weight"] = weight * (gain / (9 * before)) ** 0.5
        state[f"Gnet.{name}.bias"] = 0.1 * torch.randn(after, generator=generator)

    for a, b in itertools.pairwise(BLOCKS):
        before = 3 if a == 1 else a
        for part, i, o in (("conv_down", before, before), ("conv", before, b), ("conv2", b, b)):
            put(f"conv_block{a}_{b}.{part}", i, o)
    for a, b in [*itertools.pairwise(BLOCKS[:0:-1])]:
        for suffix in ("", "_mask") if b == 16 else ("",):
            for part, i in (("conv0", a), ("conv", a), ("conv2", b)):
                put(f"up_block{a}_{b}{suffix}.{part}", i, b)
    put("last_alt", 16, 1, 0.2)
    put("last_alt_mask", 16, 1, 0.2)
    put("conv8", 4, 4)
    state |= {f"Dnet.conv8.{k}": state.pop(f"Gnet.conv8.{k}") for k in ("weight", "bias")}
    return state


def authors_forward(state: dict[str, torch.Tensor], photo: torch.Tensor) -> list[torch.Tensor]:
    """The released network written down again: 500 px in, tanh of bump and mask, 512 px out."""

    def conv(name: str, x: torch.Tensor, stride: int = 1, padding: int = 1) -> torch.Tensor:
        w, b = (state[f"Gnet.{name}.{part}"] for part in ("weight", "bias"))
        return functional.conv2d(x, w, b, stride, padding)

    x, skips = photo, []
    for a, b in itertools.pairwise(BLOCKS):
        name = f"conv_block{a}_{b}"
        if a > 1:
            x = torch.relu(conv(f"{name}.conv_down", x, stride=2))
        x = torch.relu(conv(f"{name}.conv", x, padding=7 if a == 1 else 1))
        x = torch.relu(conv(f"{name}.conv2", x))
        skips.append(x)
    skips.pop()

    def up(name: str, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = conv(f"{name}.conv0", x.repeat_interleave(2, 2).repeat_interleave(2, 3))
        x = torch.relu(conv(f"{name}.conv", torch.cat([x, skip], 1)))
        return torch.relu(conv(f"{name}.conv2", x))

    for a, b in itertools.pairwise(BLOCKS[:1:-1]):
        x = up(f"up_block{a}_{b}", x, skips.pop())
    heads = [up(f"up_block32_16{suffix}", x, skips[0]) for suffix in ("", "_mask")]
    return [
        torch.tanh(conv(n, h)) for n, h in zip(("last_alt", "last_alt_mask"), heads, strict=True)
    ]


def test_authors_weights_give_their_maps_in_our_units(authors_state, tmp_path):
    torch.save({"state_dict": authors_state}, tmp_path / "a.pth.tar")
    assert max(convert_bump.convert(tmp_path / "a.pth.tar", tmp_path / "a.onnx").values()) < 1e-3
    session = Session(tmp_path / "a.onnx", threads=1)
    assert (session.metadata["channels"], session.metadata["stride"]) == ("3", "64")
    # 116 px in place of 500: padded by 7 they become 128
    photo = torch.rand(1, 3, 116, 116, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        bump, mask = (x[0, 0].numpy() for x in authors_forward(authors_state, photo))
    got = session.run({"image": functional.pad(photo, (6, 6, 6, 6)).numpy()})
    levels = np.full((512, 512), 127, np.uint8)
    levels[:128, :128] = np.rint((bump + 1) * 127.5)
    assert np.ptp(levels) > 10
    ours = got["bump"][0, 0][6:122, 6:122]
    # half a level is 0.052 mm
    np.testing.assert_allclose(ours, bump_from_authors_map(levels)[:116, :116], atol=0.0525)
    np.testing.assert_allclose(got["mask"][0, 0], mask.clip(0, 1), atol=1e-4)
    assert 0 < (mask > 0).mean() < 1


def test_authors_files_that_do_not_fit_are_named(authors_state):
    def build(**changes) -> None:
        state = {k: v for k, v in (authors_state | changes).items() if v is not None}
        convert_bump.build(state, "x.pth")

    for changes, message in (
        ({"Gnet.last_alt.bias": None}, r"missing tensors: last_alt\.bias"),
        ({"Gnet.more.weight": torch.zeros(1)}, r"unexpected tensors: more\.weight"),
        ({"Gnet.last_alt.weight": torch.zeros(1, 8, 3, 3)}, r"misshapen tensors: last_alt\.weight"),
    ):
        with pytest.raises(convert_authors.InvalidFile, match=message):
            build(**changes)
    with pytest.raises(convert_authors.InvalidFile, match="missing"):
        convert_bump.build({"conv1.weight": torch.zeros(3)}, "x.pth")
    # the generator alone, without its prefix
    alone = {k.removeprefix("Gnet."): v for k, v in authors_state.items() if k.startswith("Gnet")}
    convert_bump.build(alone, "x.pth")
