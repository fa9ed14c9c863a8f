"""The command `extreme3d`: reconstruct photos, build references and engines, show what there is."""

from __future__ import annotations

import argparse
import collections
import itertools
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, TextIO

import cv2

from extreme3d_fast.errors import DeviceUnavailable, Extreme3DError, InvalidModelFile
from extreme3d_fast.face import Face
from extreme3d_fast.image_io import load_image
from extreme3d_fast.mesh_io import FORMATS

ALL_DONE, SOME_FAILED, WRONG_USE = 0, 1, 2
_ASSETS = Path(__file__).parent / "assets"
_GPU_PACKAGES = ("onnxruntime-gpu", "tensorrt-cu13", "tensorrt-rtx-cu13")

_EPILOG = """--device cuda works on the current NVIDIA GPU; `extreme3d info` says whether there is
one. Its first run builds the networks' engines, which takes a while, once;
`extreme3d engines build` does that before.

exit status: 0 every photo gave a face; 1 at least one did not, the others are
written; 2 wrong use, or nothing could be tried at all."""

_BUILD_EPILOG = """Photos are taken by measures alone: one clear, sharp, large, uncovered face. What
is kept of each is its relief, viewpoint, shape and identity feature; no picture and no name.
Identity features tell people apart: treat the file as data about them. It is written whole at the
end.

exit status: 0 a set was written; 1 a photo could not be read, or none will do; 2 wrong use."""

_ENGINES_EPILOG = """A network's engine is built when the network is first run on a GPU; this
builds all of them before. They are kept in the folder that EXTREME3D_CACHE names, else in the
user's cache folder.

exit status: 0 all are there; 1 one could not be built; 2 wrong use, or no TensorRT here."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0: every photo gave a face. 1: at least one did not, the others are written. 2: wrong use.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except BrokenPipeError:  # `extreme3d info | head`: nobody reads on, and that is all right
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("extreme3d: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="extreme3d", description="Detailed, complete 3D heads from single photos."
    )
    version = f"extreme3d_fast {_version('extreme3d-fast')}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    reconstruct = commands.add_parser(
        "reconstruct",
        help="photos to 3D files",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    reconstruct.add_argument("photos", nargs="+", metavar="PHOTO", help="image files")
    reconstruct.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="folder, made if missing"
    )
    reconstruct.add_argument(
        "--format",
        action="append",
        choices=[suffix[1:] for suffix in FORMATS],
        help="file format, may be given several times (default: glb)",
    )
    reconstruct.add_argument(
        "--turntable", action="store_true", help="also write a PNG with views from several sides"
    )
    reconstruct.add_argument(
        "--all-faces", action="store_true", help="every face of a photo, not only the main one"
    )
    _add_run_options(reconstruct)
    reconstruct.set_defaults(run=_reconstruct)

    _add_references(commands)
    _add_engines(commands)

    info = commands.add_parser("info", help="versions, devices and model files")
    info.set_defaults(run=_info)

    demo = commands.add_parser("demo", help="reconstruct a portrait and draw it")
    demo.add_argument(
        "photo", nargs="?", metavar="PHOTO", help="default: scikit-image's astronaut, if installed"
    )
    demo.add_argument(
        "-o", "--output", type=Path, default=Path("out"), metavar="OUT", help="default: out/"
    )
    _add_run_options(demo)
    demo.set_defaults(run=_demo)
    return parser


def _add_references(commands: Any) -> None:
    references = commands.add_parser("references", help="faces that lend relief to covered ones")
    actions = references.add_subparsers(metavar="ACTION", required=True)
    build = actions.add_parser(
        "build",
        help="photos to a reference set",
        epilog=_BUILD_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    build.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="image files, or folders with such at any depth"
    )
    build.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the .npz file to write"
    )
    build.add_argument(
        "--max", type=_count, metavar="N", help="stop when N photos are taken (default: try all)"
    )
    build.add_argument("--source", default="", help="where the photos come from, kept in the file")
    build.add_argument("--licence", default="", help="terms of the set, kept in the file")
    _add_bump_network(build)
    _add_threads(build)
    build.set_defaults(run=_build_references)
    about = actions.add_parser("info", help="what a reference set holds")
    about.add_argument("file", nargs="?", metavar="FILE", help="default: the built-in set")
    about.set_defaults(run=_references_info)


def _add_engines(commands: Any) -> None:
    engines = commands.add_parser("engines", help="networks built for NVIDIA GPUs, kept in a cache")
    actions = engines.add_subparsers(metavar="ACTION", required=True)
    build = actions.add_parser(
        "build",
        help="build what is not there yet",
        epilog=_ENGINES_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    build.add_argument(
        "--sm",
        type=_count,
        metavar="NN",
        help="compute capability of another GPU, 86 for 8.6 (default: the GPU here)",
    )
    build.add_argument(
        "--precision",
        choices=("fp16", "tf32", "fp32"),
        default="fp16",
        help="of the inner layers (default: fp16)",
    )
    build.set_defaults(run=_build_engines)
    listing = actions.add_parser("list", help="what the cache holds")
    listing.set_defaults(run=_list_engines)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        default="cpu",
        metavar="{cpu,cuda}",
        help="what to work on: the processor, or an NVIDIA GPU (default: cpu)",
    )
    parser.add_argument(
        "--runtime",
        choices=("onnxruntime", "openvino"),
        help="what runs the networks on the processor (default: the faster one that is installed)",
    )
    parser.add_argument(
        "--foundation",
        choices=("auto", "networks", "landmarks"),
        default="auto",
        help="what shape and pose come from (default: auto, networks refined by landmarks)",
    )
    parser.add_argument(
        "--detail",
        choices=("network", "shading", "none"),
        default="network",
        help="what the fine relief comes from (default: network; shading needs no training)",
    )
    _add_bump_network(parser)
    parser.add_argument(
        "--occlusion",
        choices=("reference", "smooth", "none"),
        default="reference",
        help="what fills the covered parts (default: reference, detail of similar faces)",
    )
    parser.add_argument(
        "--references",
        type=Path,
        metavar="FILE",
        help="another reference set, from `extreme3d references build` (default: the built-in one)",
    )
    _add_threads(parser)


def _add_bump_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bump-network",
        type=Path,
        metavar="FILE",
        help="ONNX file of another bump-map network (default: the built-in one)",
    )


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads",
        type=_positive,
        default=min(os.cpu_count() or 1, 4),
        metavar="N",
        help="default: %(default)s",
    )


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 256:
        raise argparse.ArgumentTypeError(f"should be a number from 1 to 256, is {text}")
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"should be a number above 0, is {text}")
    return int(text)


def make_reconstructor(options: argparse.Namespace) -> Any:
    """Import late: `extreme3d --help` stays fast, and tests put a stand-in here."""
    from extreme3d_fast.reconstructor import Reconstructor

    return Reconstructor(
        device=options.device,
        runtime=options.runtime,
        foundation=options.foundation,
        detail=options.detail,
        bump_network=options.bump_network,
        occlusion=options.occlusion,
        references=options.references,
        threads=options.threads,
    )


def make_reference_builder(options: argparse.Namespace) -> Any:
    """Import late, as above."""
    from extreme3d_fast.reference_builder import ReferenceBuilder

    return ReferenceBuilder(bump_network=options.bump_network, threads=options.threads)


def _reconstruct(options: argparse.Namespace) -> int:
    formats = list(dict.fromkeys(options.format or ["glb"]))
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        reconstructor = make_reconstructor(options)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        return _refuse(error)
    failed = 0
    progress = Progress(len(options.photos), sys.stderr)
    for photo, name in zip(options.photos, unique_names(options.photos), strict=True):
        started = time.perf_counter()
        try:
            image = load_image(photo)
            if options.all_faces:
                faces = list(reconstructor.reconstruct_all(image))
            else:
                faces = [reconstructor.reconstruct(image)]
            written = [
                path
                for stem, face in _stems(name, faces)
                for path in write_face(face, options.output / stem, formats, options.turntable)
            ]
        except Exception as error:  # whatever one photo does, the others are tried
            failed += 1
            progress.say(f"{photo}: {str(error) or type(error).__name__}")
        else:
            if not faces:
                failed += 1
                progress.say(f"{photo}: no face found")
            for face in faces:
                for warning in face.warnings:
                    progress.say(f"{photo}: warning: {warning}")
            seconds = time.perf_counter() - started
            for path in written:
                progress.say(f"{photo} -> {path} ({seconds:.2f} s)", sys.stdout)
        progress.step()
    progress.close()
    if failed:
        print(f"extreme3d: {failed} of {len(options.photos)} photos failed", file=sys.stderr)
    return SOME_FAILED if failed else ALL_DONE


def _build_references(options: argparse.Namespace) -> int:
    from extreme3d_fast.reference_builder import image_files
    from extreme3d_fast.references import ReferenceWriter

    photos = list(image_files(options.photos))
    if not photos:
        return _refuse(ValueError("no image files in " + ", ".join(options.photos)))
    if options.output.suffix != ".npz":  # a photo named there by mistake would be overwritten
        return _refuse(ValueError(f"-o should name an .npz file, is {options.output}"))
    if not options.output.parent.is_dir():
        return _refuse(ValueError(f"there is no folder {options.output.parent}"))
    refusals: collections.Counter[str] = collections.Counter()
    failed = tried = taken = 0
    try:
        builder = make_reference_builder(options)
        writer = ReferenceWriter(
            options.output, **builder.metadata, source=options.source, licence=options.licence
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        return _refuse(error)
    try:
        with writer:
            progress = Progress(len(photos), sys.stderr)
            for photo in photos:
                tried += 1
                try:
                    candidate = builder.examine(photo)
                except Exception as error:  # whatever one photo does, the others are tried
                    failed += 1
                    progress.say(f"{photo}: {str(error) or type(error).__name__}")
                    candidate = None
                if candidate and candidate.refusal:
                    refusals[candidate.refusal] += 1
                elif candidate:
                    try:
                        taken = writer.add(candidate.face, candidate.descriptor) + 1
                    except ValueError as error:  # not OSError: a full disk ends it
                        failed += 1
                        progress.say(f"{photo}: {error}")
                progress.step()
                if taken == options.max:
                    break
            progress.close()
            if not taken:
                raise _NothingToWrite
    except _NothingToWrite:
        print("extreme3d: no photo will do, nothing is written", file=sys.stderr)
    except OSError as error:
        return _refuse(error)
    else:
        megabytes = options.output.stat().st_size / 1e6
        print(f"{options.output}: {taken} faces of {tried} photos, {megabytes:.2f} MB")
    for reason, count in refusals.most_common():
        print(f"  {count:6d} refused: {reason}")
    if failed:
        print(f"extreme3d: {failed} of {tried} photos failed", file=sys.stderr)
    return SOME_FAILED if failed or not taken else ALL_DONE


class _NothingToWrite(Exception):
    """No photo was taken."""


def _references_info(options: argparse.Namespace) -> int:
    from extreme3d_fast.head_model import HeadModel
    from extreme3d_fast.references import ReferenceSet

    try:
        references = ReferenceSet.load(options.file)
    except (OSError, Extreme3DError) as error:
        return _refuse(error)
    size = references.path.stat().st_size
    print(f"{references.path}: {len(references)} faces, {size / 1e6:.2f} MB")
    yaw, pitch = abs(references.yaw_pitch).T
    edges = (0, 15, 30, 45, 60, 91)
    for low, high in itertools.pairwise(edges):
        print(f"  {((yaw >= low) & (yaw < high)).sum():6d} turned {low} to {min(high, 90)} degrees")
    print(f"  {(pitch >= 15).sum():6d} looking up or down by 15 degrees or more")
    for name in ("bump_network", "source", "licence"):
        print(f"{name.replace('_', ' ')}: {references.metadata[name] or 'not stated'}")
    if references.head_model != HeadModel.load().fingerprint:
        print("made with another head model than the built-in one")
    return ALL_DONE


def _build_engines(options: argparse.Namespace) -> int:
    from extreme3d_fast.device import Device
    from extreme3d_fast.engines import EngineCache, cached_engine, engine_key, installed_tensorrt

    failed = 0
    try:
        target = options.sm or Device().gpu
        runtime = installed_tensorrt(ahead_of_time=options.sm is not None)
        cache = EngineCache()
        for path in sorted(_ASSETS.glob("*.onnx")):
            key = engine_key(path, precision=options.precision, target=target, runtime=runtime)
            known = cache.load(key) is not None
            started = time.perf_counter()
            try:
                _, engine = cached_engine(
                    path, precision=options.precision, target=target, runtime=runtime, cache=cache
                )
            except InvalidModelFile as error:
                failed += 1
                print(f"extreme3d: {error}", file=sys.stderr)
                continue
            seconds = time.perf_counter() - started
            how = "there" if known else f"built in {seconds:.1f} s"
            print(
                f"{path.stem:16} {key.gpu} {key.precision} {len(engine) / 1e6:6.2f} MB, {how}",
                flush=True,
            )
    except (OSError, Extreme3DError) as error:
        return _refuse(error)
    print(f"with {key.runtime}, in {cache.folder}")
    return SOME_FAILED if failed else ALL_DONE


def _list_engines(_: argparse.Namespace) -> int:
    from extreme3d_fast.engines import EngineCache

    try:
        cache = EngineCache()
        for entry in cache.entries():
            key = entry.key
            print(
                f"{entry.name:16} {key.content} for {key.gpu}, {key.precision}, {key.runtime}, "
                f"{entry.size / 1e6:.2f} MB: {entry.path.name}"
            )
    except (OSError, Extreme3DError) as error:
        return _refuse(error)
    print(f"in {cache.folder}")
    return ALL_DONE


def _refuse(error: Exception) -> int:
    print(f"extreme3d: {error}", file=sys.stderr)
    return WRONG_USE


def _stems(name: str, faces: Sequence[Face]) -> Iterator[tuple[str, Face]]:
    for i, face in enumerate(faces):
        yield (f"{name}_face{i + 1}" if len(faces) > 1 else name), face


def unique_names(photos: Sequence[str]) -> list[str]:
    """A file name without suffix for each photo, no two alike even where case does not count.

    Photos of the same name get _2, _3 and so on, in the order given.
    """
    # Names that a first photo asks for are not handed to a second one of another name.
    wanted = {Path(photo).stem.casefold() for photo in photos}
    taken: set[str] = set()
    names = []
    for photo in photos:
        stem = Path(photo).stem or "photo"
        name, count = stem, 1
        while name.casefold() in taken or (count > 1 and name.casefold() in wanted):
            count += 1
            name = f"{stem}_{count}"
        taken.add(name.casefold())
        names.append(name)
    return names


def write_face(face: Face, stem: Path, formats: Sequence[str], turntable: bool) -> list[Path]:
    """Write a face as `stem` + each format, and the turntable sheet; returns what was written."""
    written = []
    for suffix in formats:
        path = stem.with_name(f"{stem.name}.{suffix}")
        face.save(path)
        written.append(path)
    if turntable:
        path = stem.with_name(f"{stem.name}_turntable.png")
        data = cv2.imencode(".png", cv2.cvtColor(face.turntable_sheet(), cv2.COLOR_RGB2BGR))[1]
        path.write_bytes(data.tobytes())
        written.append(path)
    return written


class Progress:
    """A bar on a terminal, redrawn in place; messages go above it. Silent where there is none."""

    WIDTH = 30

    def __init__(self, total: int, stream: TextIO) -> None:
        self._total, self._done, self._stream = total, 0, stream
        self._shown = total > 1 and stream.isatty()
        self._started = time.perf_counter()
        self._draw()

    def step(self) -> None:
        """One photo more is done."""
        self._done += 1
        self._draw()

    def say(self, text: str, stream: TextIO | None = None) -> None:
        """Print a line above the bar."""
        self._clear()
        print(text, file=stream or self._stream, flush=True)
        self._draw()

    def close(self) -> None:
        """Take the bar away."""
        self._clear()

    def _clear(self) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _draw(self) -> None:
        if not self._shown:
            return
        filled = self.WIDTH * self._done // self._total
        bar = "#" * filled + "." * (self.WIDTH - filled)
        spent = time.perf_counter() - self._started
        left = spent / self._done * (self._total - self._done) if self._done else 0.0
        rest = f", {left:.0f} s left" if self._done else ""
        self._stream.write(f"\r\x1b[K[{bar}] {self._done}/{self._total}{rest}")
        self._stream.flush()


def _info(_: argparse.Namespace) -> int:
    print(f"extreme3d_fast {_version('extreme3d-fast')} on {platform.platform()}")
    print(f"Python {platform.python_version()}, {os.cpu_count()} logical cores")
    for package in ("numpy", "opencv-python-headless", "onnxruntime", "openvino", *_GPU_PACKAGES):
        print(f"{package} {_version(package)}")
    try:
        providers = import_module("onnxruntime").get_available_providers()
        devices = [p.removesuffix("ExecutionProvider") for p in providers]
        # ONNX Runtime lists a remote service among the devices.
        print("network devices: " + ", ".join(d for d in devices if d != "Azure"))
    except ImportError as error:
        print(f"network devices: none, {error}")
    try:
        core = import_module("extreme3d_fast._core")
        print(f"C++ core: {core.__file__}")
    except ImportError as error:
        print(f"C++ core: missing, {error}")
    for line in _gpu_info():
        print(line)
    print(f"model files in {_ASSETS}:")
    for path in sorted(_ASSETS.glob("*")):
        if path.suffix in (".npz", ".npy", ".onnx"):
            print(f"  {path.name:28} {path.stat().st_size / 1e6:7.2f} MB")
    return ALL_DONE


def _gpu_info() -> Iterator[str]:
    """What there is to run the pipeline on GPUs."""
    try:
        from extreme3d_fast.device import gpus
        from extreme3d_fast.device_session import RUNTIMES, available_runtime

        found = gpus()
        yield f"CUDA operations: {import_module('extreme3d_fast._cuda').__file__}"
    except ImportError as error:
        yield f"CUDA operations: not usable, {error}"
        return
    except (Extreme3DError, RuntimeError) as error:
        yield f"CUDA operations: missing, {error}"
        return
    if not found:
        yield "GPUs: no NVIDIA GPU, or no driver for it"
    for gpu in found:
        yield (
            f"GPU {gpu.number}: {gpu.name}, {gpu.memory / 1e9:.0f} GB, compute capability "
            f"{gpu.compute_capability / 10}"
        )
        for name in RUNTIMES:
            try:
                yield f"  networks can run with {available_runtime(name, gpu)}"
            except DeviceUnavailable as error:
                yield f"  not with {name}: {error}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _demo(options: argparse.Namespace) -> int:
    source: Any = options.photo
    name = Path(source).stem if source else "astronaut"
    if not source:
        try:
            source = import_module("skimage.data").astronaut()
        except ImportError:
            return _refuse(
                ValueError("give a PHOTO, or install scikit-image for its astronaut portrait")
            )
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        image = load_image(source)
        reconstructor = make_reconstructor(options)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        return _refuse(error)
    try:
        face = reconstructor.reconstruct(image)
        written = write_face(face, options.output / name, ["glb", "ply"], turntable=True)
    except (Extreme3DError, OSError, ValueError, RuntimeError) as error:
        print(f"extreme3d: {error}", file=sys.stderr)
        return SOME_FAILED
    print(face)
    for stage, milliseconds in face.timings.items():
        print(f"  {stage:24} {milliseconds:8.1f} ms")
    for warning in face.warnings:
        print(f"warning: {warning}")
    for path in written:
        print(f"wrote {path}")
    return ALL_DONE
