"""The card of a model, the README.md beside its weights, written from what the model carries and from nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mult.errors import pluralize

PAPER = "https://arxiv.org/abs/2205.08303"

FITS = {
    "short_side": "scaled, both sides alike, until they cover it",
    "stretch": "stretched to it",
    "pad": "scaled down, both sides alike, until they fit into it, with black around",
}


def write_card(arguments: Mapping[str, Any], classes: Mapping[str, Sequence[str]], origin: Mapping[str, Any]) -> str:
    """The card, in Markdown with the hub's YAML before it. arguments, classes and origin: `MulT`'s.

    What is not known is said to be unknown: a model that was not loaded from a run carries no origin.
    """
    tasks, data = arguments["tasks"], origin.get("data", [])
    licences = {part["licence"] for part in data}
    head = ["library_name: mult", "pipeline_tag: image-segmentation"]
    head += [f"license: {'mit' if licences == {'MIT'} and not origin['starts_from_weights'] else 'other'}"] if licences else []
    units = origin.get("units", {})
    outputs = [
        [task, str(channels), units.get(task, "not said"), ", ".join(classes.get(task, []))] for task, channels in tasks.items()
    ]
    metric = "m" in units.values()
    method = f"{arguments['backbone']}, decoder {arguments['decoder']}"
    if arguments["decoder"] != "fpn":
        method += f", attention {arguments['attention']}"
    lines = [
        *("---", *head, "---", "", f"# MulT: {', '.join(tasks)}", ""),
        f"From one RGB image, {len(tasks)} dense maps ({method}), by the library mult-dense.",
        f"The method: [MulT, CVPR 2022]({PAPER}).",
        *("", "## What it predicts", "", *_table(["map", "channels of the network", "unit", "classes"], outputs)),
        *("", "## On what it was trained", "", *_describe_training(data, origin)),
        *("", "## How good it is", "", *_describe_scores(origin.get("evaluations", []))),
        *("", "## Limits", ""),
        "- The scores are of the data named above them. On other images they are not known.",
        *(["- Metres are those of cameras like the training data's: another field of view changes them by a factor."] * metric),
        "- A class that is not in the table is predicted as one that is.",
        *("", "## The data's licence", "", *(f"- {part['dataset']}: {part['licence']}" for part in data)),
        *([] if data else ["Not known: the model does not say on what it was trained."]),
        *("", "## How to use it", "", "```python", *_example(origin), "```", ""),
    ]
    return "\n".join(lines)


def _describe_training(data: Sequence[Mapping[str, Any]], origin: Mapping[str, Any]) -> list[str]:
    if not origin:
        return ["The model does not say. `mult push` writes what the folder of its run knows."]
    height, width = origin["image_size"]
    lines = [
        f"- {part['dataset']}, split {part['split']}"
        + (f", depth up to {part['max_depth_m']:g} m" if part["max_depth_m"] is not None else "")
        for part in data
    ]
    lines.append(f"- images of {height} x {width} pixels; photographs are {FITS[origin['fit']]}")
    if origin["starts_from_weights"]:
        lines.append("- it started from weights trained on other data, whose licence holds as well")
    weights = origin["weights"]
    lines.append(f"- step {weights['step']}; commit of the code: {weights['commit'] or 'not recorded'}")
    return [*lines, f"- SHA-256 of the training's config.yaml: `{origin['config_sha256']}`"]


def _describe_scores(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    if not evaluations:
        return ["These weights were not evaluated."]
    lines = ["Intervals are of 95 %, by the bootstrap. The best constant is the score of one value for every pixel."]
    for evaluation in evaluations:
        rows = [
            [
                score["task"],
                f"{score['metric']}, {score['better']} is better",
                f"{score['value']:.4g} {score['unit']}".rstrip(),
                " to ".join(f"{end:.4g}" for end in score["interval"] or []) or "none",
                "none" if score["trivial"] is None else f"{score['trivial']:.4g} {score['unit']}".rstrip(),
            ]
            for score in evaluation["scores"]
        ]
        images = pluralize(evaluation["images"], "image")
        about = f"{images}; intervals over {evaluation['over']}; weights selected {evaluation['selected']}"
        lines += ["", f"**{evaluation['dataset']}, split {evaluation['split']}**: {about}", ""]
        lines += _table(["map", "metric", "value", "interval", "best constant"], rows)
    return lines


def _example(origin: Mapping[str, Any]) -> list[str]:
    if not origin:
        return [
            "from mult.models import MulT  # pip install mult-dense",
            'model = MulT.from_pretrained("this folder or its name on the hub")',
            "outputs = model(images)  # (B, 3, H, W) in [0, 1] -> {task: (B, channels, H, W)}, not decoded",
        ]
    return [
        "from PIL import Image",
        "from mult import Predictor  # pip install mult-dense",
        'predictor = Predictor.from_pretrained("this folder or its name on the hub")',
        'maps = predictor(Image.open("photo.jpg"))',
        "print({task: values.shape for task, values in maps.items()})  # at the photograph's own size, in the units above",
    ]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *rows)]
