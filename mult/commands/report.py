"""Report: mult report RUN ... [--out FILE]. A run, or several side by side, as one HTML page.

A run's page is written to report.html in its folder. The best, median and worst images are those of the first run, predicted
anew from the checkpoints; their data are those of its config unless --config names another YAML, as for eval.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mult.cli import add_baselines, check_distinct, exit_on_user_error
from mult.config import load_config, load_data_config
from mult.errors import UserError
from mult.evaluation.results import read_evaluation
from mult.files import check_output
from mult.report.write import write_report
from mult.runtime import distributed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="folders of runs")
    parser.add_argument("--out", type=Path, help="the page; by default report.html in the run's folder, if there is one run")
    parser.add_argument(
        "--eval", metavar="STEM", help="the evaluation to look at closely: <dataset>-<split>, by default the test split"
    )
    parser.add_argument("--config", help="a YAML whose data section has the images of that evaluation")
    parser.add_argument("--images", type=int, default=2, help="how many best, median and worst images a task; 0 loads no model")
    add_baselines(parser, ": adds delta_m to the table of the evaluation of that name")
    parser.add_argument("--note", default="", help="a text above the results, such as what is missing")
    arguments = parser.parse_args()
    with exit_on_user_error():
        if arguments.images < 0:
            raise UserError(f"--images: got {arguments.images}; expected a number of images; 0 for none")
        if arguments.out is None and len(arguments.runs) > 1:
            raise UserError(
                f"--out: got none for {len(arguments.runs)} runs; expected a file; write e.g. --out comparison.html"
            )
        if arguments.config is not None and not arguments.images:
            raise UserError(
                f"--config: got {arguments.config} with --images 0, which reads no images; expected one of them alone; "
                "leave one out"
            )
        check_distinct("report", arguments.runs)
        out = arguments.out or arguments.runs[0] / "report.html"
        check_output(out, "--out")
        for path in arguments.baseline:
            read_evaluation(path)  # refused before pictures are drawn
        data = None
        if arguments.config is not None:
            data = load_data_config(arguments.config, defaults=load_config(arguments.runs[0] / "config.yaml").data)
        device = distributed.pick_device("auto")
        print(
            write_report(
                arguments.runs, out, device, arguments.eval, data, arguments.images, arguments.baseline, arguments.note
            )
        )
