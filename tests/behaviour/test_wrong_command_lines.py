"""Three hundred command lines, each right but for one argument: each ends with one message and status 2, and writes no result.

The commands run in this process. The seed decides which argument of which command is wrong, and how.
"""

from __future__ import annotations

import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from PIL import Image

from mult.commands import COMMANDS, main

NUMBER = 300
SEED = 17
LIMIT_S = 10

Lines = list[tuple[str, list[str], int, str]]
"""(command, its right arguments, the place of the one to spoil, the kind of that one)."""

_OVERRIDES = """
optim.lr optim.lr= =3 . optim.lr=-1 optim.lr=nan optim.lr=.inf optim.lr=1:30 optim.steps=0 optim.steps=1e3 optim.steps=many
modle.reference=normal model.reference=normals data.root=nowhere data.root= tasks={} tasks={normale:1} tasks.normal=-1
data.image_size=8 data.image_size=[64,64,64] data.workers=-1 data.batch_size=0 data.batch_size=2.5 data.dataset=imagenet
data.split=tarin data.options={x:1} data={ data=[] model.window_size=0 model.backbone=resnet_five model.backbone=hf-hub:a/b
model.backbone_args={checkpoint_path:x} model.backbone_args={embed_dim:x} model.backbone_args=3 model.num_heads=5
model.pretrained=nowhere.pth model.attention=sharde model.decoder=x model.dropout=1 run.name= run.name=../x run.name=/x
run.seed=-1 run.seed=x run.device=cuda:77 run.device=tpu run.precision=fp8 run.init=nowhere run.keep=0 run.deterministic=maybe
optim.name=sgd optim.schedule=linear optim.warmup=-1 optim.betas=[1,2] balance.method=x balance.options={x:1} eval.split=nowhere
eval.images=-1 eval.every=0.5 x=&x[*x] tasks.normal.loss=l3
"""
OVERRIDES = _OVERRIDES.split()
"""Wrong `section.key=value` words for training; YAML reads `{a:1}` as a mapping without a value, which is wrong too."""


@pytest.fixture
def words(tmp_path: Path, config_file: Path, trained: Path) -> dict[str, list[str]]:
    """Kind of an argument -> wrong ones."""
    texts = {"binary": b"\x00\xff\xfe\x80" * 50, "empty": b"", "list": b"- 1\n- 2\n", "text.jpg": b"no picture"}
    for name, content in texts.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    file = {name: str(tmp_path / name) for name in [*texts, "folder", "nowhere"]}
    files = [file["binary"], file["empty"], file["list"], file["folder"], file["nowhere"]]
    return {
        "config": [*files, "", "roms6", "rooms6.yml", "nowhere/rooms6.yaml"],
        "suite": [*files, "", "rooms6", "smok", str(config_file)],
        "run": [*files, "", str(tmp_path), str(config_file)],
        "evaluation": [*files, "", str(config_file)],
        "images": [file["folder"], file["nowhere"], file["text.jpg"], file["empty"], file["binary"]],
        "root": [file["folder"], file["nowhere"], file["binary"], ""],
        "out": [f"{file['binary']}/x.json", f"{file['text.jpg']}/a/b"],
        "count": ["0", "-3", "1.5", "many", "", "nan", "1e400", "[1]"],
        "size": ["-3", "1.5", "many", "", "nan"],
        "override": OVERRIDES,
        "value": [
            *OVERRIDES[:13],
            "data={",
            "run.keep=0",
            "x=&x[*x]",
        ],  # wrong whatever the data are: rooms are made where none are
        "choice": ["x", "", "None", "-"],
        "split": ["tset", "", "nowhere", "../test"],
        "sigmas": ["-1", "a", "nan", "1,,2", "inf", ","],
        "kinds": ["noisy", "", "noise,", "noise,x"],
        "points": ["0.5", "2,2", "nan,0", "a,b", "", "0.1,0.2:"],
        "heads": ["99", "-1", "a", "0,,1"],
        "option": ["--nowhere", "--conf", "-z", "--"],
        "command": ["trian", "", "train ", "evaluate", "--nowhere"],
    }


def right_lines(tmp_path: Path, config: Path, run: Path, tree: Path) -> Lines:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (40, 30), (10, 200, 90)).save(photo)
    evaluation = next((run / "eval").glob("*.json"))
    train = ["--config", str(config), f"run.output={tmp_path}/runs", "optim.steps=1"]
    predict = ["--ckpt", str(run), str(photo), "--out", f"{tmp_path}/predicted"]
    evaluate = ["--ckpt", str(run), "--split", "val", "--out", f"{tmp_path}/evaluated.json"]
    check = ["--dataset", "taskonomy", "--root", str(tree), "--out", f"{tmp_path}/check", "--workers", "1"]
    derive = ["--dataset", "taskonomy", "--root", str(tree), "--workers", "1"]
    rooms = ["--out", f"{tmp_path}/rooms", "--workers", "1"]
    lines: Lines = [("train", [*train, ""], 4, "override")] * 6
    lines += [("train", train, 1, "config"), ("predict", predict, 1, "run"), ("predict", predict, 2, "images")]
    lines += [("predict", [*predict, option, ""], 6, kind) for option, kind in PREDICT.items()]
    lines += [("predict", predict, 4, "out"), ("eval", evaluate, 1, "run"), ("eval", evaluate, 3, "split")]
    lines += [("eval", evaluate, 5, "out"), ("eval", [*evaluate, "--config", ""], 7, "config")]
    lines += [("eval", [*evaluate, option, ""], 7, kind) for option, kind in EVALUATE.items()]
    lines += [("compare", [str(run), str(run)], 1, "run"), ("compare", [str(evaluation), ""], 1, "evaluation")]
    lines += [("report", [str(run), "--out", f"{tmp_path}/page.html", option, ""], 4, kind) for option, kind in REPORT.items()]
    lines += [("report", [str(run)], 0, "run"), ("suite", [""], 0, "suite"), ("suite", ["smoke", ""], 1, "value")]
    lines += [("check-data", check, 3, "root"), ("check-data", [*check, "--views", ""], 9, "count")]
    lines += [("check-data", [*check, "--split", ""], 9, "split"), ("check-data", ["--config", ""], 1, "config")]
    lines += [
        ("annotate", derive, 1, "choice"),
        ("annotate", derive, 3, "root"),
        ("annotate", [*derive, "--split", ""], 7, "split"),
    ]
    lines += [("make-rooms", [*rooms, f"--{name}", ""], 5, "count") for name in ("buildings", "views", "size")]
    lines += [
        ("make-rooms", [*rooms, "--seed", ""], 5, "size"),
        ("pack", ["--config", "", "--out", f"{tmp_path}/pack"], 1, "config"),
    ]
    lines += [("prepare-nyu", ["--mat", "", "--out", f"{tmp_path}/nyu"], 1, "evaluation")]
    lines += [(command, [""], 0, "option") for command in COMMANDS]
    return [*lines, ("", [], 0, "command")]


PREDICT = {"--format": "choice", "--tta": "choice", "--at": "points", "--heads": "heads", "--batch-size": "count"}
EVALUATE = {"--blur": "sigmas", "--corrupt": "kinds", "--baseline": "evaluation"}
REPORT = {"--images": "size", "--eval": "choice", "--config": "config", "--baseline": "evaluation"}


def end_hanging(number: int, frame: FrameType | None) -> None:
    raise AssertionError("it hangs")


@pytest.mark.slow
def test_wrong_command_lines_end_with_one_message(
    words: dict[str, list[str]],
    config_file: Path,
    trained: Path,
    own_tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    generator = random.Random(SEED)
    lines = right_lines(tmp_path, config_file, trained, own_tree)
    monkeypatch.chdir(tmp_path)
    ends: Counter[str] = Counter()
    faults: list[str] = []
    longest = 0.0
    for number in range(NUMBER):
        command, arguments, place, kind = lines[number % len(lines)]
        wrong = generator.choice(words[kind])
        line = [wrong] if kind == "command" else [command, *arguments[:place], wrong, *arguments[place + 1 :]]
        status, err, seconds = call(main, line, monkeypatch, capsys)
        longest = max(longest, seconds)
        messages = re.findall(r"(?:^|\r *\r?)(?:error|mult [\w-]+: error|stopped): ", err, re.MULTILINE)
        ends[f"status {status}, {len(messages)} message{'s' * (len(messages) != 1)}"] += 1
        if status != 2 or len(messages) != 1 or "Traceback" in err or seconds > LIMIT_S:
            faults.append(f"{line}: status {status} after {seconds:.1f} s: {err[-500:]}")
    with capsys.disabled():
        print(f"\n{NUMBER} wrong command lines, seed {SEED}: {dict(ends)}; the longest took {longest:.1f} s")
    assert not faults, "\n".join(faults)


def call(
    run: Callable[[], None], line: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[object, str, float]:
    """(exit status, or the exception that is a traceback; what was printed to stderr; seconds) of a command line."""
    monkeypatch.setattr(sys, "argv", ["mult", *line])
    capsys.readouterr()
    before = signal.signal(signal.SIGALRM, end_hanging)
    signal.alarm(6 * LIMIT_S)
    start = time.monotonic()
    end: object = 0
    try:
        run()
    except SystemExit as exit_:
        end = exit_.code or 0
    except BaseException as error:
        end = repr(error)[:300]
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return end, capsys.readouterr().err, time.monotonic() - start
