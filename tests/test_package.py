"""The package as a whole: who may import whom, what is public, what is shipped."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = REPOSITORY / "python" / "extreme3d_fast"
MODULES = sorted(path.stem for path in SOURCES.glob("*.py"))

# From the bottom up: a module imports only from layers below its own. Operations and the network
# runtime never import each other, only estimator and reconstructor join them.
LAYERS: list[set[str]] = [
    {"_core", "errors", "camera", "_arrays", "aside", "openvino_runner"},
    {
        "_shading",
        "blending",
        "crop",
        "device",
        "half_precision",
        "mesh",
        "model_readers",
        "session",
    },
    {"engines", "image_io", "head_model", "rasterize", "dense", "mesh_io"},
    {
        "bump",
        "completion",
        "face_chart",
        "landmark_fit",
        "occlusion",
        "registration",
        "render",
        "shading",
        "smooth_depth",
        "soft_symmetry",
        "sparse",
        "texture",
        "zipper",
    },
    {"paint"},
    {"photo_network", "device_session"},
    {"device_network"},
    {"detect", "references"},
    {"pose", "bump_network", "transfer", "face", "device_references", "device_views"},
    {"foundation", "identity", "localize"},
    {"estimator"},
    {"foundation_view", "similar_faces", "lane"},
    {"device_pipeline"},
    {"reconstructor", "reference_builder"},
    {"cli"},
    {"__main__", "__init__"},
]
# HeadModel.load hands files of other formats to the readers, which make a HeadModel.
UPWARD_ON_USE = {("head_model", "model_readers")}
NETWORK_RUNTIME = {
    "openvino_runner",
    "session",
    "half_precision",
    "engines",
    "device_session",
    "photo_network",
    "detect",
    "pose",
    "bump_network",
    "foundation",
    "identity",
    "localize",
}
OPERATIONS = {
    "mesh",
    "blending",
    "paint",
    "references",
    "device_references",
    "device_views",
    "transfer",
}
OPERATIONS |= {"transfer"} | LAYERS[2] | LAYERS[3]
OPERATIONS -= NETWORK_RUNTIME


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, by their last name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found |= {n.split(".")[1] for n in names if n.startswith("extreme3d_fast.")}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level == 0 and base.split(".")[0] != "extreme3d_fast":
                continue
            inside = base.removeprefix("extreme3d_fast").strip(".")
            found |= {inside.split(".")[0]} if inside else {alias.name for alias in node.names}
    return found & ({"_core"} | set(MODULES))


def level(module: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if module in layer)


@pytest.mark.parametrize("module", MODULES)
def test_module_has_its_place_in_the_layers(module: str) -> None:
    assert any(module in layer for layer in LAYERS), f"add {module} to LAYERS"


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_from_below(module: str) -> None:
    used = imports(SOURCES / f"{module}.py")
    upwards = {name for name in used - {module} if level(name) >= level(module)}
    upwards -= {name for user, name in UPWARD_ON_USE if user == module}
    assert not upwards, f"{module} imports {sorted(upwards)}"


@pytest.mark.parametrize("module", sorted(OPERATIONS & set(MODULES)))
def test_operation_knows_nothing_of_networks(module: str) -> None:
    assert not imports(SOURCES / f"{module}.py") & NETWORK_RUNTIME


@pytest.mark.parametrize("module", sorted(NETWORK_RUNTIME & set(MODULES)))
def test_network_runtime_knows_nothing_of_operations(module: str) -> None:
    assert not imports(SOURCES / f"{module}.py") & OPERATIONS


@pytest.mark.parametrize("module", MODULES)
def test_package_never_imports_what_is_built_on_it(module: str) -> None:
    text = (SOURCES / f"{module}.py").read_text()
    assert not re.search(r"^\s*(from|import) (bench|train|tests|torch|tensorflow)\b", text, re.M)


@pytest.mark.parametrize("folder", ["include/extreme3d", "src", "bindings"])
def test_cpp_core_does_not_know_python(folder: str) -> None:
    for path in (REPOSITORY / "cpp" / folder).glob("*"):
        text = path.read_text()
        assert folder == "bindings" or "pybind11" not in text, path
        assert folder == "src" or "<Eigen" not in text, path


@pytest.mark.parametrize("folder", ["include/extreme3d/cuda", "src", "bindings"])
def test_device_operations_do_not_know_python_nor_eigen(folder: str) -> None:
    for path in (REPOSITORY / "cuda" / folder).glob("*"):
        text = path.read_text()
        assert folder == "bindings" or "nanobind" not in text, path
        assert "<Eigen" not in text, path


def test_every_device_source_is_built_twice() -> None:
    listed = (REPOSITORY / "cuda" / "sources.cmake").read_text()
    for path in (REPOSITORY / "cuda").glob("*/*.c*"):
        assert f"{path.parent.name}/{path.name}" in listed, path


def test_nothing_unpickles() -> None:
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "")]
                assert not {"pickle", "joblib", "dill"} & set(names), path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path


def test_importing_is_quick_and_loads_no_optional_package() -> None:
    heavy = ("torch", "tensorflow", "scipy", "skimage", "trimesh", "matplotlib", "h5py")
    heavy += ("tensorrt", "tensorrt_rtx", "openvino")
    code = f"import sys, extreme3d_fast; print([m for m in {heavy} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_version_stands_in_one_place() -> None:
    import extreme3d_fast

    version = extreme3d_fast.__version__
    try:
        assert metadata.version("extreme3d-fast") == version
    except metadata.PackageNotFoundError:
        pytest.skip("extreme3d_fast is imported from its sources, not installed")
    for path in [*SOURCES.rglob("*.py"), *REPOSITORY.glob("*.toml"), REPOSITORY / "CMakeLists.txt"]:
        expected = 1 if path == SOURCES / "__init__.py" else 0
        assert path.read_text().count(f'"{version}"') == expected, path


def test_public_names_are_these() -> None:
    import extreme3d_fast

    assert sorted(extreme3d_fast.__all__) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(extreme3d_fast, name) is not None


PUBLIC = [
    "Camera",
    "DeviceUnavailable",
    "Extreme3DError",
    "Face",
    "Foundation",
    "HeadModel",
    "InvalidImage",
    "InvalidModelFile",
    "NoFaceFound",
    "Occlusion",
    "Provenance",
    "Reconstructor",
    "Reference",
    "__version__",
    "reconstruct",
    "reconstruct_all",
]


def installed() -> Path:
    spec = importlib.util.find_spec("extreme3d_fast")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def test_type_information_is_shipped() -> None:
    assert (installed() / "py.typed").is_file()
    assert (installed() / "_core.pyi").is_file()


def test_stub_of_the_core_is_fresh() -> None:
    from extreme3d_fast import _core

    stub = ast.parse((installed() / "_core.pyi").read_text())
    in_stub = {n.name: n for n in stub.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    in_core = {name for name in dir(_core) if not name.startswith("_")}
    assert set(in_stub) == in_core, "run `make stubs`"
    for name, node in in_stub.items():
        if isinstance(node, ast.FunctionDef):
            names = [a.arg for a in node.args.args + node.args.kwonlyargs]
            # pybind11 puts the signature into the docstring: name(a: type, b: type = value) -> type
            signature = getattr(_core, name).__doc__.splitlines()[0]
            assert names == re.findall(r"[(,] ?(\w+): ", signature), f"{name}: run `make stubs`"


@pytest.mark.parametrize(
    "asset", sorted(p.name for p in (SOURCES / "assets").glob("*") if p.suffix != ".md")
)
def test_every_model_file_has_a_card(asset: str) -> None:
    card = (SOURCES / "assets" / asset).with_suffix(".card.md")
    assert card.is_file(), f"say in {card.name} where {asset} comes from and under which licence"
    assert "licen" in card.read_text().lower()


def test_demo_and_test_are_targets_of_the_makefile() -> None:
    text = (REPOSITORY / "Makefile").read_text()
    assert re.search(r"^demo:", text, re.M)
    assert re.search(r"^test:", text, re.M)
