"""Look at a model in the browser: mult demo --ckpt RUN_OR_CHECKPOINT [--compare RUN_OR_CHECKPOINT] [--port N].

A page on this machine alone (extra `demo`): drop a photograph and see its maps at its own size; click a point and read its
values, with their units, and see what it attends to in every decoder stage; with --compare two models side by side.
"""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

from mult.cli import exit_on_user_error
from mult.demo.page import ADDRESS, check_gradio, serve
from mult.demo.view import Model
from mult.errors import UserError
from mult.predict import Predictor
from mult.runtime import distributed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True, help="a run's folder (its best checkpoint), a checkpoint's, or mult push's")
    parser.add_argument("--compare", metavar="CKPT", help="another one, to show beside it")
    parser.add_argument("--port", type=int, help="of the page; default: the first free one from 7860")
    arguments = parser.parse_args()
    with exit_on_user_error():
        if arguments.port is not None:
            check_port(arguments.port)
        check_gradio()
        paths = [arguments.ckpt, *([] if arguments.compare is None else [arguments.compare])]
        page = serve([Model(path, load(path)) for path in paths], arguments.port)
        print(f"{page.local_url} shows {' and '.join(paths)}; Ctrl-C ends it", flush=True)
        page.block_thread()


def check_port(port: int) -> None:
    """Raise UserError for a port that the page cannot have."""
    remedy = "expected a free port from 1 to 65535; give another, or leave --port out"
    if not 1 <= port <= 65535:
        raise UserError(f"--port: got {port}; {remedy}")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((ADDRESS, port))
        except OSError as error:
            raise UserError(f"--port: got {port} ({error.strerror}); {remedy}") from error


def load(path: str) -> Predictor:
    """The model of a run, of a checkpoint or, without the config.yaml that these have, of a folder of `mult push`."""
    device = distributed.pick_device("auto")
    folder = Path(path)
    if (folder / "config.json").is_file() and not (folder / "config.yaml").exists():
        return Predictor.from_pretrained(folder, device)
    return Predictor.from_checkpoint(folder, device)
