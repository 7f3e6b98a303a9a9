"""Hand a model over: python scripts/push.py --ckpt RUN_OR_CHECKPOINT --out FOLDER [--to USER/NAME [--private]].

Writes the weights, what they need (size of images, classes, units, scores) and a card into FOLDER, from which
`Predictor.from_pretrained(FOLDER)` loads. With --to it lists what it would upload to the Hugging Face hub, and asks; without a
"y" nothing is uploaded. The training's config.yaml stays here, since it has this machine's paths; its digest goes.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from mult.cli import exit_on_user_error
from mult.errors import UserError
from mult.files import write_folder
from mult.share import load_to_share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True, help="a run's folder (its best checkpoint) or a checkpoint's")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="the folder to write, which is not there yet")
    parser.add_argument("--to", metavar="USER/NAME", help="upload it to this repository of the hub, after a question")
    parser.add_argument("--private", action="store_true", help="a repository that is made is not public")
    arguments = parser.parse_args()
    with exit_on_user_error():
        out: Path = arguments.out
        if out.exists():
            raise UserError(f"--out: got {out}, which is there; expected a new folder; give another name")
        if arguments.to is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", arguments.to, re.ASCII):
            raise UserError(f"--to: got {arguments.to!r}; expected USER/NAME of letters, digits, '-', '_' and '.'; correct it")
        model = load_to_share(arguments.ckpt)
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        write_folder(out.absolute(), model.save_pretrained)
        files = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
        print(*(f"  {size:>12,} bytes  {out / name}" for name, size in files.items()), sep="\n")
        if not model.origin["evaluations"]:
            print(f"no evaluation of these weights, and so no score on the card; mult eval --ckpt {arguments.ckpt} makes one")
        if arguments.to is not None:
            visibility = "private" if arguments.private else "public"
            question = f"upload these {len(files)} files, and nothing else, to {arguments.to} on the hub"
            print(f"{question} ({visibility} if it is new)? [y/N]")
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                print("nothing was uploaded")
                return
            print(f"uploaded: {_upload(out, arguments.to, arguments.private)}")


def _upload(folder: Path, name: str, private: bool) -> Any:
    try:
        api = HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        return api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload by mult push")
    except Exception as error:  # the hub's, the system's and those of an HTTP library, which differs between versions
        reason = " ".join(str(error).split())
        raise UserError(
            f"--to: got {name}, which the hub did not take ({reason:.300}); expected a network, a token that may write there "
            f"(`hf auth login`) and a name of yours; {folder} is whole: try again with it or by `hf upload`"
        ) from error
