"""ONNX and .pt2: the same maps as torch's, in physical units and by their tasks' names, for any number of images."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mult.export import to_onnx, trace
from mult.models import MulT
from mult.runs.checkpoint import load_checkpoint

README = Path(__file__).resolve().parents[1] / "README.md"
Script = Callable[..., Any]
TASKS = {"segment_semantic": 5, "depth_zbuffer": 1, "normal": 3}
BACKBONES: dict[str, dict[str, Any]] = {
    "swin_tiny_patch4_window7_224": {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]},
    "pvt_v2_b0": {"depths": [1, 1, 1, 1]},
    "tf_efficientnet_lite0": {},
}


def noise(batch: int, size: tuple[int, int]) -> Tensor:
    """Brighter to the right, so that no map is constant."""
    values = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(batch))
    return values * torch.linspace(0, 1, size[1])


def run_onnx(content: bytes | str, images: Tensor) -> dict[str, NDArray[Any]]:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images.numpy()}), strict=True))


def assert_decoded(got: Mapping[str, NDArray[Any]], outputs: Mapping[str, Tensor]) -> None:
    """The constants of Task Grouping's code, written out again; classes where the two best do not lie within 1e-4."""
    raw = {task: output.double().numpy() for task, output in outputs.items()}
    assert list(got) == list(raw)
    depth, normal, logits = raw["depth_zbuffer"], raw["normal"], raw["segment_semantic"]
    np.testing.assert_allclose(got["depth_zbuffer"], depth * 1000 / 512 + 1500 / 512, rtol=0, atol=1e-4)
    np.testing.assert_allclose(got["normal"], normal / np.linalg.norm(normal, axis=1, keepdims=True), rtol=0, atol=1e-4)
    best = np.sort(logits, axis=1)
    certain = best[:, -1] - best[:, -2] > 1e-4
    assert certain.mean() > 0.9
    assert got["segment_semantic"].dtype == np.int64
    assert np.array_equal(got["segment_semantic"][certain], logits.argmax(axis=1)[certain])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_onnx_gives_torch_s_maps_at_any_batch(backbone: str) -> None:
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model = MulT(TASKS, "normal", backbone, backbone_args=BACKBONES[backbone], window_size=3).eval()
    size = (48, 68)  # windows and, of backbones but Swin, images are padded
    head = model.decoder.heads["segment_semantic"].linear
    with torch.no_grad():
        head.bias.copy_(-model(noise(2, size))["segment_semantic"].mean(dim=(0, 2, 3)))  # so that every class is somewhere best
    content = to_onnx(trace(model, size), model.tasks, {})
    classes: set[int] = set()
    for batch in (1, 3):
        images = noise(batch, size)
        with torch.no_grad():
            outputs = model(images)
        got = run_onnx(content, images)
        classes |= set(got["segment_semantic"].flat)
        assert_decoded(got, outputs)
    assert len(classes) > 1


def test_the_files_of_a_run_give_its_maps_and_say_what_they_are(script: Script, trained: Path, tmp_path: Path) -> None:
    """.onnx and .pt2, of 5 images: a number that the export did not try."""
    onnx = pytest.importorskip("onnx")
    ended = script("export", "--ckpt", trained, "--out", tmp_path / "model.onnx")
    assert ended.status == 0, ended.err
    assert "largest difference from torch, batch of 3: segment_semantic 0" in ended.out

    graph = onnx.load(tmp_path / "model.onnx")
    by_onnx = {entry.key: json.loads(entry.value) for entry in graph.metadata_props}
    stored = dict.fromkeys(by_onnx, "")
    program = torch.export.load(tmp_path / "model.pt2", extra_files=stored)
    assert {name: json.loads(value) for name, value in stored.items()} == by_onnx
    model, _ = load_checkpoint(trained)
    assert by_onnx["size"] == [48, 40]
    assert by_onnx["fit"] == "short_side"
    assert by_onnx["units"]["depth_zbuffer"] == "m"
    assert list(by_onnx["units"]) == [output.name for output in graph.graph.output]
    assert len(by_onnx["classes"]["segment_semantic"]) == model.arguments["tasks"]["segment_semantic"]
    shape = [axis.dim_param or axis.dim_value for axis in graph.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", 3, 48, 40]

    images = noise(5, (48, 40))
    with torch.no_grad():
        outputs = {task: output for task, output in model(images).items() if task in TASKS}
    by_pt2 = {task: value.detach().numpy() for task, value in program.module()(images).items()}
    for got in (by_pt2, run_onnx(str(tmp_path / "model.onnx"), images)):
        assert list(got) == model.tasks
        assert_decoded({task: got[task] for task in outputs}, outputs)

    Image.fromarray((255 * images[0].permute(1, 2, 0).numpy()).round().astype(np.uint8)).save(tmp_path / "photo.jpg")
    example = next(block for block in README.read_text().split("```") if "onnxruntime" in block and block.startswith("python"))
    ended = subprocess.run(
        [sys.executable, "-c", example.removeprefix("python\n")], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert len(example.splitlines()) <= 31
    assert [line.split()[0] for line in ended.stdout.splitlines()] == model.tasks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "model.pb"], "--out: got model.pb; expected a name that ends in .onnx or .pt2"),
        (["--out", "model.onnx", "--size", "64", "8"], "--size: got [64, 8]; expected at least 32 pixels a side"),
    ],
)
def test_what_cannot_be_exported_is_refused_first(script: Script, trained: Path, arguments: list[str], message: str) -> None:
    ended = script("export", "--ckpt", trained, *arguments)
    assert ended.status == 2
    assert ended.err.startswith(f"error: {message}")


def test_without_the_extra_one_message_names_it(
    script: Script, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ended = script("export", "--ckpt", trained, "--out", tmp_path / "model.onnx")
    assert ended.status == 2
    assert 'pip install "mult-dense[onnx]"' in ended.err
    assert list(tmp_path.iterdir()) == []
