"""Options that a call makes no use of, or lacks, are one message and status 2 before anything is read or written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mult.commands.annotate import NEEDED
from mult.commands.annotate import USED as USED_BY_ANNOTATE
from mult.commands.check_data import USED as USED_BY_CHECK

RGBD = "--rgb r --depth d --depth-scale 1000 --intrinsics 5 5 2 2 --out OUT --building b"
PAIRS = "--pairs a b --depth-scale 1000 --intrinsics 5 5 2 2 --out OUT --building b"
DATASET = "--dataset taskonomy --root r"
REFUSED = {
    f"{RGBD} --tasks normal": "--tasks: got normal beside --rgb, which makes no use of it; expected it with --dataset; l",
    f"{RGBD} subset=medium": "key=value: got subset=medium beside --rgb, which",
    f"{RGBD} --root data": "--root: got data beside --rgb, which",
    f"{RGBD} --max-gap 1": "--max-gap: got 1.0 beside --rgb, which makes no use of it; expected it with --from or --pairs",
    f"{RGBD} --mask-min 2": "--mask-min: got 2.0 without --mask; expected both",
    f"{RGBD} --mask m --mask-min nan": "--mask-min: got nan; expected a number from 0 on",
    f"{RGBD} --rotated-bits 16": "--rotated-bits: got 16; expected 1 to 15",
    f"{RGBD} --workers 0": "--workers: got 0; expected a whole number above 0",
    f"{RGBD} --split train val": "--split: got train val; expected one for RGB-D",
    f"{PAIRS} --rgb r": "--rgb: got r beside --pairs, which makes no use of it; expected it with --from; leave it out",
    f"{PAIRS} --max-gap -1": "--max-gap: got -1.0; expected a number from 0 on",
    "--from tum . --out OUT --rgb r": "--rgb: got .*/r beside lists of pairs; expected one or the other",
    "--from 7scenes . --out OUT --max-gap 1": "--max-gap: got 1.0 without --pairs; expected both",
    "--from 7scenes . --out OUT --mask-min 1": "--mask-min: got 1.0 without --mask; expected both",
    "--from 7scenes . --out OUT --tasks normal": "--tasks: got normal beside --from, which",
    f"{DATASET} --building foo": "--building: got foo beside --dataset, which makes no use of it; expected it with --from or ",
    f"{DATASET} --depth-scale 3": "--depth-scale: got 3.0 beside --dataset, which",
    f"{DATASET} --out OUT": "--out: got OUT beside --dataset, which",
    f"{DATASET} --start 0": "--start: got 0 beside --dataset, which",
    f"{DATASET} --from tum x": "--from: got tum x beside --dataset, which makes no use of it; expected either --from or",
    f"{DATASET} root=x": "key=value: got 'root=x'; expected split, hold_out, subset, .*, which say what is read; leave it out",
    f"{DATASET} augment.flip=false": "key=value: got 'augment.flip=false'; expected split,",
    "--dataset '' --root r": "data.dataset: got ''; expected one of",
    "--root r": "annotate: got no data; expected --rgb and --depth, --pairs, --from or --dataset; give one of these",
    "--rgb r --depth d": "annotate: got --rgb without --depth-scale, --intrinsics, --out, --building; expected all of these",
    "--pairs a b --out OUT": "annotate: got --pairs without --depth-scale, --intrinsics, --building; expected all of these",
}
"""What annotate.py is called with -> its message."""
REFUSED_BY_CHECK = {
    "--config ''": "config: got ; expected a YAML file",
    "--config livingroom5 --root data/mine": "--root: got data/mine beside --config, which makes no use of it; expected it "
    "with --dataset; leave it out; data.dataset=NAME and data.root=ROOT change what a config reads",
    "--config livingroom5 --dataset rooms": "--dataset: got rooms beside --config, which makes no use of it; expected either",
    f"{DATASET} --seed 3": "--seed: got 3 without --views; expected both",
    f"{DATASET} --views 0": "--views: got 0; expected a whole number above 0",
    f"{DATASET} --workers 0": "--workers: got 0; expected a whole number above 0",
    f"{DATASET} fit=pad": "key=value: got 'fit=pad'; expected split,",
    f"{DATASET} hold_out=0.1 --split tset": "split: got 'tset'; expected one of train, val, test, held_out; did you",
    "--root r": "check-data: got --root; expected --config or --dataset and --root; give it",
    "": "check-data: got no data; expected --config or --dataset and --root; give it",
}
CALLS = [("annotate", *each) for each in REFUSED.items()] + [("check_data", *each) for each in REFUSED_BY_CHECK.items()]


@pytest.mark.parametrize(("command", "words", "message"), CALLS, ids=[f"{command} {words}" for command, words, _ in CALLS])
def test_an_option_that_does_nothing_is_refused(
    script: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, words: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = script(command, *shlex.split(words))
    assert ended.status == 2
    assert re.fullmatch(f"error: {message}.*\n", ended.err), ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("used", [USED_BY_ANNOTATE, USED_BY_CHECK])
def test_a_call_uses_what_tells_it(used: dict[str, tuple[str, ...]]) -> None:
    assert all(call in names for call, names in used.items())


def test_a_call_uses_what_it_needs() -> None:
    assert NEEDED.keys() == USED_BY_ANNOTATE.keys()
    assert all(set(needed) <= set(USED_BY_ANNOTATE[call]) for call, needed in NEEDED.items())
