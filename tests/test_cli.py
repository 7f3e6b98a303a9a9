"""What a user gets wrong ends with exit status 2 and one message that says got, expected and remedy; nothing half-written."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mult
from mult import UserError
from mult.cli import exit_on_user_error, separate_overrides
from mult.errors import pluralize

Script = Callable[..., Any]
MULT = Path(mult.__file__).parent


def refused(ended: Any, message: str, status: int = 2) -> None:
    """The end of a script that was refused: the message, once, and no traceback."""
    assert ended.status == status, ended.err
    said = [line for line in ended.err.splitlines() if line.startswith(("error:", "stopped:"))]
    assert len(said) == 1, ended.err
    assert re.search(message, said[0]), said[0]
    assert "Traceback" not in ended.err
    assert "DataLoader worker" not in ended.err


def is_whole(folder: Path) -> bool:
    """No temporary file or folder was left."""
    return not [path for path in folder.rglob("*") if path.name.endswith(".tmp") or ".tmp." in path.name]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim.learning_rate=1"], r"optim\.learning_rate.*expected"),
        (["modle.reference=normal"], r"modle.*did you mean.*model"),
        (["optim.lr"], r"expected section\.key=value; write e\.g\."),
        (["optim.steps=many"], r"optim\.steps: got 'many' .*; expected an integer"),
        (["optim.lr=-1"], r"optim\.lr: got -1.*; expected a number above 0"),
        (["data.image_size=[10, 20, 30]"], r"data\.image_size: got \[10, 20, 30\] .*; expected one number of pixels or"),
        (["tasks={normale: 1}"], r"tasks: got 'normale'; expected .*did you mean 'normal'\?"),
        (["model.reference=normals"], r"model\.reference: got 'normals'; expected one of .*; did you mean 'normal'\?"),
        (["model.attention=sharde", "data.root=no/such/folder"], r"model\.attention: got 'sharde'; .* did you mean 'shared'\?"),
        (["model.backbone=resnet_five"], r"model\.backbone: got 'resnet_five'; expected a model of timm"),
        (
            ["model.backbone=xcit_nano_12_p16_224", "model.backbone_args={}"],
            r"strides \[16, .*; expected one each at \[4, 8, 16, 32\]",
        ),
        (
            ["model.pretrained=true", "model.backbone_args={}"],
            r"model\.pretrained: .*expected a network or a file; .*model\.pretrained=PATH",
        ),
        (["data.root=no/such/folder"], r"data\.root: got 'no/such/folder', which is no folder; expected .*; correct the path"),
        (["run.device=cuda:77"], r"run\.device: got 'cuda:77'.*; expected auto, cpu or a device"),
        (["run.init=no/such/run"], r"checkpoint: got no/such/run; expected a run's folder .*no such folder"),
        (
            ["model.backbone=maxvit_rmlp_pico_rw_256", "model.backbone_args={}", "data.fit=pad"],
            r"image size: got \(48, 40\); expected \(256, 256\), as maxvit_rmlp_pico_rw_256 takes no other; set data\.im",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_the_config_gets_wrong(
    script: Script, config_file: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    refused(script("train", "--config", config_file, f"run.output={tmp_path}/runs", *overrides), message)
    assert not (tmp_path / "runs").exists()


def test_a_config_that_is_not_there(script: Script, tmp_path: Path) -> None:
    refused(script("train", "--config", tmp_path / "none.yaml"), r"got .*none\.yaml; expected a YAML file; .*check the path")


def train(script: Script, config_file: Path, root: Path, *overrides: str) -> Any:
    settings = [f"data.root={root}", f"run.output={root.parent}/runs", *overrides]
    return script("train", "--config", config_file, *settings)


def test_an_empty_split(script: Script, config_file: Path, own_tree: Path) -> None:
    (own_tree / "splits.csv").write_text("id,train,val,test\nalder,1,0,0\n")
    refused(
        train(script, config_file, own_tree), r"got no view of split 'val'; expected .*splits\.csv\), .*; correct that file"
    )
    assert not (own_tree.parent / "runs").exists()


def test_a_task_without_labels(script: Script, config_file: Path, own_tree: Path) -> None:
    shutil.rmtree(own_tree / "edge_texture")
    refused(
        train(script, config_file, own_tree), r"got task edge_texture, of which split 'train' has no file; expected .*; leave"
    )
    assert not (own_tree.parent / "runs").exists()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def write_wrong_mode(path: Path) -> None:
    Image.new("RGB", (64, 64), (3, 4, 5)).save(path)


def write_unknown_class(path: Path) -> None:
    Image.fromarray(np.full((64, 64), 18, np.uint8)).save(path)


DAMAGES = [
    (
        "rgb",
        "rgb",
        truncate,
        r"point_2_view_0_domain_rgb\.png: got a file that cannot be read .*; expected a whole image; fetch",
    ),
    (
        "depth_zbuffer",
        "depth_zbuffer",
        write_wrong_mode,
        r"depth_zbuffer\.png: got an image of mode RGB; expected I;16.*; store",
    ),
    (
        "segment_semantic",
        "segmentsemantic",
        write_unknown_class,
        r"segmentsemantic\.png: got label code 18; expected 0 .* to 17; map",
    ),
]


@pytest.mark.parametrize(("folder", "ending", "damage", "message"), DAMAGES, ids=[case[0] for case in DAMAGES])
def test_a_damaged_file_is_named(
    script: Script, config_file: Path, own_tree: Path, folder: str, ending: str, damage: Callable[[Path], None], message: str
) -> None:
    damage(own_tree / folder / "alder" / f"point_2_view_0_domain_{ending}.png")
    ended = train(script, config_file, own_tree)
    refused(ended, message)
    assert "alder" in ended.err
    assert is_whole(own_tree.parent)
    assert not list((own_tree.parent / "runs").rglob("metrics.jsonl"))
    for resume in ([], ["--resume"]):  # nothing was trained, so that both begin anew
        ended = train(script, config_file, own_tree, *resume)
        refused(ended, message)
        assert "tiny: the run in it ended before its first checkpoint; starting it over" in ended.err


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_a_worker_cannot_read(script: Script, config_file: Path, own_tree: Path, workers: int) -> None:
    """In the validation split, which is first read in the middle of training; the second evaluation would be step 4."""
    write_unknown_class(own_tree / "segment_semantic" / "cedar" / "point_2_view_0_domain_segmentsemantic.png")
    ended = train(script, config_file, own_tree, f"data.workers={workers}")
    refused(
        ended, r"^error: \S*cedar/point_2_view_0_domain_segmentsemantic\.png: got label code 18; expected .*; map the labels"
    )
    folder = own_tree.parent / "runs" / "tiny"
    assert is_whole(folder)
    assert os.readlink(folder / "checkpoints" / "last") == "2"  # the step itself is done: mend the file and go on


def test_a_loss_that_is_not_finite_ends_with_status_1(script: Script, config_file: Path, tmp_path: Path) -> None:
    overrides = [f"run.output={tmp_path}/runs", "optim.lr=1e30", "optim.warmup=0", "eval.every=1", "eval.images=0"]
    ended = script("train", "--config", config_file, *overrides)
    refused(ended, r"stopped: the loss of \w+ is (nan|inf) at step 2; .*; try a lower optim\.lr", status=1)
    assert os.readlink(tmp_path / "runs" / "tiny" / "checkpoints" / "last") == "1"


def test_a_folder_that_holds_a_run(script: Script, config_file: Path, trained: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in trained.rglob("*") if path.name != ".lock")
    message = r"tiny holds a run already; expected a new folder; go on with --resume, choose another run\.name or delete it"
    refused(script("train", "--config", config_file), message)
    refused(
        script("train", "--config", config_file, "--resume", "optim.lr=0.5"),
        r"config differs .*optim\.lr: 0\.001 -> 0\.5; expected the same but for",
    )
    refused(
        script("train", "--config", config_file, "--resume", "run.name=new"),
        r"with --resume; expected a run to go on with; start it",
    )
    assert sorted((path, path.stat().st_mtime_ns) for path in trained.rglob("*") if path.name != ".lock") == before
    assert not trained.with_name("new").exists()


# --- Checkpoints ---


def a_bit_of_the_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


def without_checksums(folder: Path) -> None:
    """As `save_pretrained` leaves a folder."""
    (folder / "manifest.json").unlink()


def half_the_weights(folder: Path) -> None:
    without_checksums(folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def other_weights(folder: Path) -> None:
    without_checksums(folder)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"embed_dim": 16', '"embed_dim": 24'))


def damaged_config(folder: Path) -> None:
    without_checksums(folder)
    (folder / "config.json").write_text('{"tasks": ')


def other_config(folder: Path) -> None:
    without_checksums(folder)
    (folder / "config.json").write_text('{"architectures": ["Bert"], "hidden_size": 768}')


def part_of_the_config(folder: Path) -> None:
    without_checksums(folder)
    content = json.loads((folder / "config.json").read_text())
    del content["classes"]
    (folder / "config.json").write_text(json.dumps(content))


def no_tasks(folder: Path) -> None:
    without_checksums(folder)
    content = json.loads((folder / "config.json").read_text())
    del content["tasks"]
    (folder / "config.json").write_text(json.dumps(content))


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def no_yaml(folder: Path) -> None:
    (folder / "config.yaml").unlink()


def another_image_size(folder: Path) -> None:
    """Still a config: the evaluation would have other numbers, and status 0."""
    text = (folder / "config.yaml").read_text()
    changed = text.replace("image_size: [48, 40]", "image_size: [48, 44]")
    assert changed != text
    (folder / "config.yaml").write_text(changed)


def other_constants(folder: Path) -> None:
    text = (folder / "trivial.json").read_text()
    (folder / "trivial.json").write_text(text.replace("1", "2", 1))


def a_line_of_the_manifest(folder: Path) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    del content["sha256"]["config.yaml"]
    (folder / "manifest.json").write_text(json.dumps(content))


CHECKPOINTS: dict[Callable[[Path], None], str] = {
    a_bit_of_the_weights: r"model\.safetensors: got another checksum than when it was written; .*: take another checkpoint",
    half_the_weights: r"model\.safetensors: not the weights of .*; expected a folder written by save_pretrained; it is damaged",
    other_weights: r"model\.safetensors: not the weights of .*; expected .*; it is damaged or of another architecture",
    damaged_config: r"config\.json: cannot be read as JSON .*; expected a file that mult wrote; take another checkpoint",
    other_config: r"config\.json: got format_version None; expected 2; take .* another folder",
    part_of_the_config: r"config\.json: got an incomplete description of a model \('classes'\); expected the config\.json",
    no_tasks: r"config\.json: got an incomplete description of a model \(.*'tasks'\); expected the config\.json",
    no_config: r"config\.json: got no such file; expected the file that training saved; it is damaged",
    no_yaml: r"config\.yaml: got no such file; expected the file that training saved",
    another_image_size: r"config\.yaml: got another checksum than when it was written; expected the file that training saved",
    other_constants: r"trivial\.json: got another checksum than when it was written",
    a_line_of_the_manifest: r"manifest\.json: got no checksums of the model and its config; .*: take another checkpoint",
}


@pytest.mark.parametrize("damage", CHECKPOINTS, ids=lambda damage: damage.__name__)
def test_a_checkpoint_that_is_none(script: Script, trained: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree((trained / "checkpoints" / "last").resolve(), folder)
    damage(folder)
    image, out = tmp_path / "x.png", tmp_path / "out"
    Image.new("RGB", (40, 30)).save(image)
    refused(script("predict", "--ckpt", folder, image, "--out", out), CHECKPOINTS[damage])
    refused(script("eval", "--ckpt", folder, "--out", out / "x.json"), CHECKPOINTS[damage])
    assert not out.exists()


def test_a_run_does_not_start_from_damaged_weights(script: Script, config_file: Path, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree((trained / "checkpoints" / "last").resolve(), folder)
    a_bit_of_the_weights(folder)
    ended = script("train", "--config", config_file, f"run.init={folder}", f"run.output={tmp_path}/runs")
    refused(ended, CHECKPOINTS[a_bit_of_the_weights])
    assert not (tmp_path / "runs").exists()


def test_a_run_does_not_start_from_another_kind_of_model(
    script: Script, config_file: Path, trained: Path, tmp_path: Path
) -> None:
    overrides = [f"run.init={trained}", f"run.output={tmp_path}/runs", "model.backbone_args.embed_dim=24"]
    refused(
        script("train", "--config", config_file, *overrides),
        r"run\.init: the weights in .* do not fit this model \(.*\); expected a run of the same model section; make it",
    )
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_that_is_not_there(script: Script, tmp_path: Path) -> None:
    for name, reason in (("none", "there is no such folder"), (".", "no checkpoint was written there yet")):
        ended = script("eval", "--ckpt", tmp_path / name)
        refused(ended, rf"checkpoint: got .*; expected a run's folder or a checkpoint's .*; {reason}")


# --- What is refused before any work ---


def test_a_disk_without_room_for_a_checkpoint(
    script: Script, config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**9, used=10**9, free=100_000))
    message = r"run\.output: got 0 MiB of free space for .*tiny; expected \d+ MiB or more for a checkpoint; make room"
    refused(script("train", "--config", config_file, f"run.output={tmp_path}"), message)
    assert not (tmp_path / "tiny" / "metrics.jsonl").exists()


def test_where_an_evaluation_cannot_be_written(script: Script, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out, message in {
        "x.npz": r"--out: got .*x\.npz; expected another ending than that of the \.npz beside it; write e\.g\. .*x\.json",
        ".": r"--out: got .*, a folder; expected a file; give one in it",
        "file/x.json": r"--out: got .*file/x\.json; expected a file in a folder; .*file is a file: choose another path",
    }.items():
        refused(script("eval", "--ckpt", trained, "--split", "val", "--out", tmp_path / out), message)
    assert (tmp_path / "file").read_text() == "x"


def test_where_nothing_can_be_written_is_said_before_the_work(script: Script, trained: Path, tmp_path: Path) -> None:
    """A folder that is a file, and a file that is a folder."""
    (tmp_path / "file").write_text("x")
    Image.new("RGB", (48, 48)).save(tmp_path / "photo.png")
    below = r": got .*; expected a file in a folder; .*file is a file: choose another path"
    out, photo = tmp_path / "file", tmp_path / "photo.png"
    refused(script("predict", "--ckpt", trained, photo, "--out", out), "--out" + below)
    refused(script("report", trained, "--out", out / "page.html"), "--out" + below)
    refused(script("report", trained, "--out", tmp_path), r"--out: got .*, a folder; expected a file; give one in it")
    refused(script("compare", trained, "--eval", "taskonomy-val", "--out", out), "--out" + below)
    refused(script("compare", trained, "--eval", "taskonomy-val", "--row", out / "row.json"), "--row" + below)
    # Each of these is said before a run, a row or a checkpoint is looked for: there is none.
    refused(script("compare", "no_run", "--row", tmp_path), r"--row: got .*, a folder; expected a file; give one in it")
    (tmp_path / "rows" / "leaderboard.md").mkdir(parents=True)
    (tmp_path / "rows" / "comparison.csv").mkdir()
    refused(
        script("compare", "--rows", "no_row", "--out", tmp_path / "rows"), r"--out: got .*leaderboard\.md, a folder; expected"
    )
    refused(script("compare", "no_run", "--out", tmp_path / "rows"), r"--out: got .*comparison\.csv, a folder; expected")
    for form in ("npz", "taskonomy"):
        refused(script("predict", "--ckpt", "no_run", photo, "--out", out, "--format", form), "--out" + below)
    (tmp_path / "maps" / "photo.npz").mkdir(parents=True)
    refused(script("predict", "--ckpt", "no_run", photo, "--out", tmp_path / "maps"), r"--out: got .*photo\.npz, a folder; ")
    (tmp_path / "run" / "report.html").mkdir(parents=True)
    refused(script("report", tmp_path / "run"), r"--out: got .*run/report\.html, a folder; expected a file; give one in it")
    assert out.read_text() == "x"


def test_overrides_after_an_option_of_several_names() -> None:
    assert separate_overrides(["train", "subset=medium", "val"]) == (["train", "val"], ["subset=medium"])
    assert separate_overrides(["subset=medium"]) == (None, ["subset=medium"])
    assert separate_overrides(None) == (None, [])


def test_check_data_takes_overrides_after_its_splits(script: Script, own_tree: Path, tmp_path: Path) -> None:
    options = ["--dataset", "taskonomy", "--root", own_tree, "--workers", 1, "--out", tmp_path / "check"]
    refused(script("check_data", *options, "--split", "val", "subsett=x"), r"'data\.subsett=x'.*did you mean 'subset'\?")


def test_pack_takes_overrides_after_its_splits(script: Script, config_file: Path, tmp_path: Path) -> None:
    ended = script("pack", "--config", config_file, "--out", tmp_path, "--split", "val", "data.subsett=x")
    refused(ended, r"'data\.subsett=x'.*did you mean 'subset'\?")


# --- The door itself ---


def test_a_programming_error_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), exit_on_user_error():
        print(1 // 0)


def test_a_user_error_ends_with_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, exit_on_user_error():
        raise UserError("x: got 1; expected 2; add one")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: x: got 1; expected 2; add one\n"


def test_a_warning_of_mult_is_a_message_and_that_of_a_library_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as left:
        warnings.simplefilter("always")
        before = warnings.showwarning
        with exit_on_user_error():
            warnings.warn_explicit("2 files are left out", UserWarning, str(MULT / "data" / "sample.py"), 1)
            warnings.warn_explicit("a library warns", UserWarning, np.__file__, 1)
            warnings.warn_explicit("mult is out of date", DeprecationWarning, str(MULT / "cli.py"), 2)
        assert warnings.showwarning is before
    assert capsys.readouterr().err == "warning: 2 files are left out\n"
    assert [str(warning.message) for warning in left] == ["a library warns", "mult is out of date"]


@pytest.mark.filterwarnings("default")
def test_files_without_a_partner_are_said_in_plain_words(script: Script, tmp_path: Path) -> None:
    for name, mode in (("rgb", "RGB"), ("depth", "I;16")):
        (tmp_path / name).mkdir()
        for frame in range(4):
            Image.new(mode, (64, 48), 2000 if mode == "I;16" else (90, 80, 70)).save(tmp_path / name / f"{frame}.png")
    (tmp_path / "depth" / "3.png").unlink()
    options = ["--rgb", tmp_path / "rgb", "--depth", tmp_path / "depth", "--depth-scale", 1000, "--workers", 1]
    options += ["--intrinsics", 60, 60, 32, 24, "--out", tmp_path / "root", "--building", "house"]
    ended = script("annotate", *options)
    assert ended.status == 0, ended.err
    said = [line for line in ended.err.splitlines() if "partner" in line]
    assert said == [f"warning: 1 file without a partner of the same name left out, e.g. {tmp_path}/rgb/3.png"]
    assert "UserWarning" not in ended.err


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (lambda: np.zeros(3).reshape(2, 2), ValueError),
        (lambda: torch.zeros(3).chunk(0), RuntimeError),
        (lambda: torch.zeros(1).new_empty(1).to("no_device"), RuntimeError),
        (lambda: __import__("no_such_module"), ImportError),
        (lambda: os.fsync(10**6), OSError),  # of no path that a user could mend
    ],
)
def test_any_other_fault_keeps_its_traceback(fault: Callable[[], Any], kind: type[Exception]) -> None:
    with pytest.raises(kind), exit_on_user_error():
        fault()


def test_the_system_s_own_errors_say_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    attempts: list[tuple[Callable[[], Any], str]] = [
        (
            (tmp_path / "file" / "below").mkdir,
            "file/below: got 'Not a directory'; expected a folder where its path has a file;",
        ),
        ((tmp_path / "none").read_text, "none: got 'No such file or directory'; expected a file or folder of that name; check"),
        (tmp_path.read_text, "got 'Is a directory'; expected a file; give one in that folder"),
        (
            (tmp_path / ("x" * 300)).touch,
            "got 'File name too long'; expected a name that the file system takes; choose a shorter",
        ),
    ]
    for attempt, message in attempts:
        with pytest.raises(SystemExit) as ended, exit_on_user_error():
            attempt()
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {tmp_path}")
        assert message in said


def test_a_number_of_things() -> None:
    numbers = [pluralize(number, noun) for number, noun in ((0, "view"), (1, "view"), (2, "view"), (1, "class"), (3, "class"))]
    assert numbers == ["0 views", "1 view", "2 views", "1 class", "3 classes"]
