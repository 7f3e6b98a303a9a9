"""Images of any kind and size -> typed maps, the same numbers as an evaluation's; the script around it."""

from __future__ import annotations

import copy
import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

from mult import TASKS, Predictor
from mult.config import Config
from mult.data import Taskonomy
from mult.data.batches.transforms import EvalTransform
from mult.data.disk.encodings import ENCODINGS
from mult.draw import TokenAttention, draw_attention_page, draw_contact_sheet, paint_map
from mult.evaluation.evaluate import predict_samples
from mult.models import MulT
from mult.runs.checkpoint import load_checkpoint

Script = Callable[..., Any]


def picture(mode: str = "RGB", size: tuple[int, int] = (53, 37)) -> Image.Image:
    """An asymmetric picture, (width, height)."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([x * 255 // width, y * 255 // height, (x > 20) * 200 + 20], axis=-1).astype(np.uint8)
    return Image.fromarray(rgb).convert(mode)


@pytest.fixture(scope="module")
def predictor(trained: Path) -> Predictor:
    return Predictor.from_checkpoint(trained)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "LA", "CMYK"])
@pytest.mark.parametrize("size", [(53, 37), (9, 71), (200, 160)])
def test_maps_are_as_the_contract_says(predictor: Predictor, mode: str, size: tuple[int, int]) -> None:
    image = picture(mode, size)
    maps = predictor(image)
    assert list(maps) == list(ENCODINGS)
    for task, values in maps.items():
        channels = TASKS[task].channels
        assert values.shape == (size[::-1] if channels is None else (channels, *size[::-1]))
        assert values.dtype == (np.int64 if channels is None else np.float32)
        assert np.isfinite(values).all()
    assert 0 <= maps["segment_semantic"].min() <= maps["segment_semantic"].max() <= 16
    np.testing.assert_allclose(np.linalg.norm(maps["normal"], axis=0), 1, atol=1e-5)
    for task, values in predictor(image.convert("RGB")).items():  # every mode means its colours
        assert np.array_equal(values, maps[task])


def test_sixteen_bit_gray_is_not_cut_at_255(predictor: Predictor) -> None:
    gray = np.asarray(picture("L"))
    deep = Image.fromarray(gray.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    for task, values in predictor(deep).items():
        assert np.array_equal(values, predictor(Image.fromarray(gray))[task])


def test_values_are_the_decoded_outputs_at_the_image_s_size(predictor: Predictor) -> None:
    """The constants of Task Grouping's code, written out again."""
    image = picture()
    pixels = torch.from_numpy(np.asarray(image).astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        # 37 x 53 until it covers 48 x 40, in proportion
        outputs = predictor.model(F.interpolate(pixels, (48, 69), mode="bilinear", antialias=True))
    native = {task: F.interpolate(output, (37, 53), mode="bilinear")[0].numpy() for task, output in outputs.items()}
    expected = {
        "segment_semantic": native["segment_semantic"].argmax(0),
        "depth_zbuffer": native["depth_zbuffer"] * 1000 / 512 + 1500 / 512,
        "normal": native["normal"] / np.linalg.norm(native["normal"], axis=0),
        "keypoints2d": native["keypoints2d"] * 100 / 65535 + 50 / 65535,
        "edge_texture": native["edge_texture"] * 1070 / 65535 + 718 / 65535,
        "reshading": native["reshading"] * 0.2846 + 0.4962,
    }
    maps = predictor(image)
    for task, values in expected.items():
        np.testing.assert_allclose(maps[task], values, rtol=1e-5, atol=1e-5)


def test_images_of_any_sizes_in_a_batch_are_as_alone(predictor: Predictor) -> None:
    images = [picture(), picture("L", (9, 71)), picture(size=(120, 64)), picture("P", (40, 48))]
    for image, maps in zip(images, predictor.batch(images), strict=True):
        for task, values in predictor(image).items():
            assert maps[task].dtype == values.dtype
            np.testing.assert_allclose(maps[task], values, atol=1e-5, err_msg=task)


def test_flip_averaging_is_the_mean_with_the_mirror_image_s_outputs(predictor: Predictor) -> None:
    """Written out: the mirror image's raw outputs turned back, x of the normals negated, the mean decoded."""
    image = picture(size=(40, 48))
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = [torch.from_numpy(np.array(one, np.float32) / 255).permute(2, 0, 1)[None] for one in (image, mirrored)]
    with torch.no_grad():
        plain, other = ({task: out[0].numpy() for task, out in predictor.model(one).items()} for one in pixels)
    mean = {task: (plain[task] + other[task][..., ::-1]) / 2 for task in plain}
    mean["normal"][0] = (plain["normal"][0] - other["normal"][0][:, ::-1]) / 2
    averaged = Predictor(predictor.model, (48, 40), tta="flip")(image)
    normal = mean["normal"] / np.linalg.norm(mean["normal"], axis=0)
    np.testing.assert_allclose(averaged["normal"], normal, atol=1e-5)
    np.testing.assert_allclose(averaged["depth_zbuffer"], mean["depth_zbuffer"] * 1000 / 512 + 1500 / 512, atol=1e-5)
    assert np.array_equal(averaged["segment_semantic"], mean["segment_semantic"].argmax(0))
    assert any(not np.allclose(averaged[task], values, atol=1e-3) for task, values in predictor(image).items())


def test_flip_averaging_cannot_tell_left_from_right(predictor: Predictor) -> None:
    model = copy.deepcopy(predictor.model)
    model.decoder.heads["normal"].linear.bias.data[2] -= 2  # away from 0, where a last bit turns a normal
    averaging = Predictor(model, (48, 40), tta="flip")
    maps, mirrored = (averaging(one) for one in (picture(), picture().transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
    for task, values in maps.items():
        sign = np.array([-1, 1, 1])[:, None, None] if task == "normal" else 1
        np.testing.assert_allclose(mirrored[task][..., ::-1] * sign, values, atol=1e-5, err_msg=task)


def test_predictions_are_the_evaluation_s(predictor: Predictor, tree_root: Path) -> None:
    view = Taskonomy(tree_root, split="val")[1]
    (sample,) = predict_samples(predictor.model, [view], EvalTransform((48, 40)), torch.device("cpu"))
    image = Image.fromarray((view["image"].permute(1, 2, 0) * 255).round().byte().numpy())
    for task, values in predictor(image).items():
        np.testing.assert_allclose(values, sample["predictions"][task], atol=1e-6)


def test_a_checkpoint_brings_its_config_and_classes(trained: Path) -> None:
    model, config = load_checkpoint(trained / "checkpoints" / "last")
    assert config.data.image_size == (48, 40)
    assert not model.training
    assert model.classes["segment_semantic"][16] == "vase"


def test_the_script_writes_arrays_and_pictures(script: Script, trained: Path, predictor: Predictor, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "deep" / "er").mkdir(parents=True)
    picture().save(folder / "a.b.png")
    picture("L", (20, 30)).save(folder / "deep" / "er" / "c.jpg")
    (folder / "notes.txt").write_text("no image")
    alone = tmp_path / "alone.bmp"
    picture(size=(31, 33)).save(alone)
    ended = script("predict", "--ckpt", trained, folder, alone, "--out", out)
    assert ended.status == 0, ended.err
    assert "3 of 3 images predicted" in ended.out
    stems = ["a.b", "deep/er/c", "alone"]
    names = {f"{stem}.npz" for stem in stems} | {f"{stem}_{kind}.png" for stem in stems for kind in [*ENCODINGS, "sheet"]}
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == names
    with np.load(out / "a.b.npz") as stored:
        assert set(stored.files) == set(ENCODINGS)
        for task, values in predictor(picture()).items():
            np.testing.assert_allclose(stored[task], values, atol=1e-5)
            assert stored[task].dtype == values.dtype
        photo = np.asarray(picture(), np.float32).transpose(2, 0, 1) / 255
        with Image.open(out / "a.b_sheet.png") as sheet:
            classes = predictor.classes
            painted = [paint_map(TASKS[task], stored[task], photo, classes.get(task)) for task in stored.files]
            expected = draw_contact_sheet(photo, painted)
            assert np.array_equal(np.asarray(sheet), np.asarray(expected))
    with Image.open(out / "deep" / "er" / "c_depth_zbuffer.png") as drawn:
        assert drawn.width >= 20
        assert len(np.unique(np.asarray(drawn.convert("RGB")).reshape(-1, 3), axis=0)) > 1


def test_an_unreadable_image_is_listed_and_the_others_are_done(script: Script, trained: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a.png", "z.png"):
        picture().save(folder / name)
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(noise).save(folder / "m.png")
    (folder / "m.png").write_bytes((folder / "m.png").read_bytes()[:1500])
    (folder / "n.jpg").write_text("not an image")
    picture(size=(500, 4)).save(folder / "narrow.png")
    ended = script("predict", "--ckpt", trained, folder, "--out", out)
    assert ended.status == 2
    assert "2 of 5 images predicted" in ended.out
    assert f"{folder}/narrow.png: image: got 4 x 500 pixels, 48 x 6000 at the network; expected at most 16 times" in ended.err
    assert str(folder / "m.png") in ended.err
    assert str(folder / "n.jpg") in ended.err
    assert str(folder / "a.png") not in ended.err
    assert "Traceback" not in ended.err
    assert {path.name for path in out.glob("*.npz")} == {"a.npz", "z.npz"}
    assert not [path for path in out.iterdir() if path.name.startswith(("m", "n", "."))]


def test_a_photograph_on_its_side_is_turned_upright(
    script: Script, trained: Path, predictor: Predictor, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the first row is the right side
    picture().save(tmp_path / "side.png", exif=exif)
    assert script("predict", "--ckpt", trained, tmp_path / "side.png", "--out", tmp_path / "out").status == 0
    expected = predictor(picture().transpose(Image.Transpose.ROTATE_270))
    with np.load(tmp_path / "out" / "side.npz") as stored:
        for task, values in expected.items():
            assert np.array_equal(stored[task], values)


def test_the_predictor_turns_a_photograph_as_the_script_does(predictor: Predictor, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(tmp_path / "side.jpg", exif=exif, quality=100, subsampling=0)
    with Image.open(tmp_path / "side.jpg") as turned:
        maps = predictor(turned)
        stored = Image.fromarray(np.asarray(turned))
    upright = predictor(stored.transpose(Image.Transpose.ROTATE_270))
    for task, values in maps.items():
        np.testing.assert_array_equal(values, upright[task])
        assert values.shape[-2:] == (53, 37)


def test_images_of_one_name_are_refused(script: Script, trained: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        picture().save(tmp_path / name / "x.png")
    picture().save(tmp_path / "one" / "x.jpg")
    for inputs in ([tmp_path / "one"], [tmp_path / "one" / "x.png", tmp_path / "two" / "x.png"]):
        ended = script("predict", "--ckpt", trained, *inputs, "--out", tmp_path / "out")
        assert ended.status == 2
        assert "got x more than once; expected names that differ; predict them in separate calls" in ended.err
    assert not (tmp_path / "out").exists()


def test_nothing_to_predict_is_an_error(script: Script, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = script("predict", "--ckpt", trained, tmp_path / "empty", "--out", tmp_path / "out")
    assert (ended.status, ended.err.count("error:")) == (2, 1)
    assert "got none in" in ended.err
    ended = script("predict", "--ckpt", trained, tmp_path / "none.png", "--out", tmp_path / "out")
    assert ended.status == 2
    assert "expected an image or a folder of images; no such file" in ended.err


def test_taskonomy_s_files_are_read_back_as_the_maps(script: Script, trained: Path, tree_root: Path, tmp_path: Path) -> None:
    """Predicting a tree's rgb folder gives a tree: the reader finds, view for view, what was predicted."""
    checkpoint, out = tmp_path / "checkpoint", tmp_path / "out"
    shutil.copytree(trained / "checkpoints" / "best", checkpoint)
    weights = load_file(checkpoint / "model.safetensors")
    weights["decoder.heads.edge_texture.linear.bias"] -= 10  # below 0 as a label, which no file holds
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    (checkpoint / "manifest.json").unlink()  # it holds the file as it was
    predictor = Predictor.from_checkpoint(checkpoint)
    shutil.copytree(tree_root / "rgb", out / "rgb")
    shutil.copy(tree_root / "splits.csv", out)
    ended = script("predict", "--ckpt", checkpoint, tree_root / "rgb", "--out", out, "--format", "taskonomy", "--batch-size", 3)
    assert ended.status == 0, ended.err
    files = len(list(tree_root.joinpath("rgb").rglob("*.png")))
    assert f"{files} of {files} images predicted" in ended.out
    steps = {"depth_zbuffer": 1 / 512, "keypoints2d": 1 / 65535, "edge_texture": 1 / 65535, "reshading": 1 / 255}
    ranges = {"depth_zbuffer": (1 / 512, 65534 / 512)}
    clipped, total = dict.fromkeys(steps, 0), dict.fromkeys(steps, 0)
    for split in ("train", "val", "test"):
        views = Taskonomy(out, split=split)
        for index in range(len(views)):
            sample = views[index]
            image = Image.fromarray((sample["image"].permute(1, 2, 0) * 255).round().byte().numpy())
            maps = predictor(image)
            stored = {task: target.numpy() for task, target in sample["targets"].items()}
            assert all(valid.all() for valid in sample["valid"].values())
            assert (stored["segment_semantic"] != maps["segment_semantic"]).mean() < 1e-3
            assert (1 - (stored["normal"] * maps["normal"]).sum(0)).max() < 1e-4
            for task, step in steps.items():
                expected = maps[task].clip(*ranges.get(task, (0, 1)))
                np.testing.assert_allclose(stored[task], expected, atol=0.51 * step, err_msg=task)
                clipped[task] += int((expected != maps[task]).sum())
                total[task] += expected.size
    assert clipped["edge_texture"] > 0
    for task, count in clipped.items():
        note = re.search(rf"{task}: (\d+) of (\d+) values clipped to what the files hold, ", ended.out)
        assert (note is not None) == (count > 0)
        assert note is None or (abs(int(note[1]) - count) <= 2 and int(note[2]) == total[task])
    assert not list(out.rglob("*.npz"))


def test_classes_that_are_not_taskonomy_s_are_left_out_with_a_note(script: Script, trained: Path, tmp_path: Path) -> None:
    checkpoint, photo = tmp_path / "checkpoint", tmp_path / "photo.png"
    shutil.copytree(trained / "checkpoints" / "best", checkpoint)
    arguments = json.loads((checkpoint / "config.json").read_text())
    arguments["classes"]["segment_semantic"][3] = "hovercraft"
    (checkpoint / "config.json").write_text(json.dumps(arguments))
    (checkpoint / "manifest.json").unlink()  # it holds the file as it was
    picture().save(photo)
    ended = script("predict", "--ckpt", checkpoint, photo, "--out", tmp_path / "out", "--format", "taskonomy")
    assert ended.status == 0, ended.err
    assert "segment_semantic: not written, the model's classes are not Taskonomy's 17" in ended.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(ENCODINGS) - {"segment_semantic"}

    backbone_args = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]}
    model = MulT({"segment_semantic": 2}, backbone_args=backbone_args)
    model.classes = {"segment_semantic": ["floor", "ball"]}
    model.save_pretrained(tmp_path / "alone")
    shutil.copy(checkpoint / "config.yaml", tmp_path / "alone")
    ended = script("predict", "--ckpt", tmp_path / "alone", photo, "--out", tmp_path / "none", "--format", "taskonomy")
    assert ended.status == 2
    assert "error: --format taskonomy: got a model of {'segment_semantic': \"the model's classes are not" in ended.err
    assert "expected a task it can hold; take --format npz" in ended.err
    assert not (tmp_path / "none").exists()


def test_attention_is_drawn_for_the_points_and_heads_of_the_options(
    script: Script, trained: Path, predictor: Predictor, tmp_path: Path
) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    picture().save(tmp_path / "in" / "deep" / "x.png")
    call = ("predict", "--ckpt", trained, tmp_path / "in", "--out", tmp_path / "out", "--attention")
    ended = script(*call, "--at", "0.2,1:0.9,0.4", "--heads", "1,0")
    assert ended.status == 0, ended.err
    assert [path.name for path in (tmp_path / "out" / "deep").glob("*attention*")] == ["x_attention_normal.png"]
    pages = []
    for x, y in ((0.2, 1.0), (0.9, 0.4)):
        stages = []
        for attention in predictor.attention(picture()):
            (height, width), stride = attention.windows.size, attention.stride
            place = min(int(y * 48 / stride), height - 1), min(int(x * 69 / stride), width - 1)
            weights, visible = attention.select(*place)
            np.testing.assert_allclose(weights.sum((1, 2)).numpy(), 1, atol=1e-5)
            stages.append(TokenAttention(stride, weights.numpy(), visible.numpy(), place, (48 / stride, 69 / stride)))
        title = f"What the point at {x:g}, {y:g} attends to: normal's query and key, for all tasks"
        photo = np.asarray(picture(), np.float32).transpose(2, 0, 1) / 255
        pages.append(np.asarray(draw_attention_page(photo, title, stages, [1, 0])))
    with Image.open(tmp_path / "out" / "deep" / "x_attention_normal.png") as drawn:
        assert np.array_equal(np.asarray(drawn), np.concatenate(pages))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--at", "0.5", "--at: got '0.5'; expected X,Y in [0, 1], fractions of width and height; write e.g. --at 0.5,0.5"),
        ("--at", "0.1,0.2:3,0.5", "--at: got '3,0.5'; expected X,Y in [0, 1]"),
        ("--at", "nan,0", "--at: got 'nan,0'; expected X,Y in [0, 1]"),
        ("--heads", "0,8", "--heads: got '0,8'; expected numbers from 0 to 7, as the widest stage has; write e.g. 0,1"),
        ("--heads", "-1", "--heads: got '-1'; expected numbers from 0 to 7"),
        ("--heads", "a", "--heads: got 'a'; expected numbers"),
    ],
)
def test_points_and_heads_that_are_not_there_are_refused(
    script: Script, trained: Path, tmp_path: Path, option: str, value: str, message: str
) -> None:
    picture().save(tmp_path / "x.png")
    out = tmp_path / "out"
    ended = script("predict", "--ckpt", trained, tmp_path / "x.png", "--out", out, "--attention", option, value)
    assert ended.status == 2
    assert message in ended.err
    assert not out.exists()


def test_an_option_that_means_nothing_is_refused(script: Script, trained: Path, tmp_path: Path) -> None:
    picture().save(tmp_path / "x.png")
    call = ("predict", "--ckpt", trained, tmp_path / "x.png", "--out", tmp_path / "out")
    ended = script(*call, "--batch-size", 0)
    assert (ended.status, ended.err.strip()) == (
        2,
        "error: --batch-size: got 0; expected a whole number above 0; 1 takes least memory",
    )
    for option in ("--tta", "--format"):
        ended = script(*call, option, "twice")
        assert ended.status == 2
        assert f"argument {option}: invalid choice: 'twice'" in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [(41, 1), (1, 64), (300, 4)])
def test_attention_of_an_image_of_an_extreme_shape_is_drawn(
    script: Script, configured: Callable[..., Config], train_run: Callable[..., Path], tmp_path: Path, size: tuple[int, int]
) -> None:
    run = train_run(configured("run.name=stretch", "data.fit=stretch", "optim.steps=1", "optim.warmup=0"))
    Image.new("RGB", size, (200, 90, 30)).save(tmp_path / "strip.png")
    ended = script("predict", "--ckpt", run, tmp_path / "strip.png", "--out", tmp_path / "out", "--attention")
    assert ended.status == 0, ended.err
    assert len(list((tmp_path / "out").glob("strip_attention_*.png"))) == 1


def test_a_predictor_can_be_pickled(trained: Path) -> None:
    predictor = Predictor.from_checkpoint(trained)
    image = Image.linear_gradient("L").resize((50, 30))
    again = pickle.loads(pickle.dumps(predictor))
    for task, values in predictor(image).items():
        np.testing.assert_array_equal(again(image)[task], values)
