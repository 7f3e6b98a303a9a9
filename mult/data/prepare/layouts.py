"""How RGB-D lies on the disk: one record says all of it, of a user's folder as of the datasets that LAYOUTS knows.

Patterns (pairs.py) are relative to the root that is given; what their folders stand for is the scene, and each scene becomes a
building. Where the facts come from is said beside each layout. Those of 7-Scenes, ARKitScenes, Hypersim, SUN RGB-D, ScanNet,
Record3D and BTS were read in the datasets' documentation or in readers in use; none was checked on the datasets' own files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mult.data.prepare.pairs import (
    DEPTH_SUFFIXES,
    RGB_SUFFIXES,
    Files,
    Frame,
    find_files,
    pair_by_name,
    pair_by_time,
    read_pairs,
)
from mult.errors import UserError
from mult.labels import Intrinsics


@dataclass(frozen=True)
class Layout:
    """Where the files of each frame are and what their numbers mean.

    rgb, depth: patterns. pairs: in their place a list of pairs, or two lists with time stamps, which pair when at most
    `max_gap_s` apart. one_a_folder: names of colour and depth differ freely, each folder has one of both.

    depth_scale: units a metre. depth_kind: "z", or "ray", the distance from the camera. depth_key: of the array in npz, hdf5,
    exr. rotated_bits: by how many bits 16-bit depth is to be rotated to the right. intrinsics: (fx, fy, cx, cy), the pattern of
    files that hold them, or {text in the path of the scene: numbers}. intrinsics_of: the images that they are of, needed where
    colour and depth differ in size. mask: the pattern of masks or maps of confidence; depth counts from `mask_min` on.

    grid: the images whose pixels the labels have; the others are resized. building: an expression for a scene's path whose
    first group names the building, so that recordings of one room are one. note: what to know before trusting the labels.
    """

    rgb: str
    depth: str
    depth_scale: float
    intrinsics: Intrinsics | str | Mapping[str, Intrinsics] | None = None
    pairs: tuple[str, ...] = ()
    max_gap_s: float = 0.02
    one_a_folder: bool = False
    depth_kind: Literal["z", "ray"] = "z"
    depth_key: str | None = None
    rotated_bits: int = 0
    intrinsics_of: Literal["depth", "rgb"] | None = None
    mask: str | None = None
    mask_min: float = 1
    grid: Literal["depth", "rgb"] = "depth"
    building: str = "(.*)"
    note: str = ""


LAYOUTS: dict[str, Layout] = {
    # cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats: depth is registered to colour, 5000 units a metre; the cameras
    # are those of the calibration there, by the robot that recorded.
    "tum": Layout(
        rgb="",
        depth="",
        pairs=("**/rgb.txt", "**/depth.txt"),
        depth_scale=5000,
        intrinsics={
            "freiburg1": (517.3, 516.5, 318.6, 255.3),
            "freiburg2": (520.9, 521.0, 325.1, 249.7),
            "freiburg3": (535.4, 539.2, 320.1, 247.6),
        },
    ),
    # www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes: millimetres, 65535 = none, one camera.
    "7scenes": Layout(
        building=r"(.*?)/?seq-\d+",
        rgb="**/frame-*.color.png",
        depth="**/frame-*.depth.png",
        depth_scale=1000,
        intrinsics=(585, 585, 320, 240),
        note="7-Scenes' colour and depth are not registered: they are off by up to some 20 pixels",
    ),
    # rgbd.cs.princeton.edu and the reader of its toolbox (read3dPoints.m): bits rotated by three, then millimetres.
    "sunrgbd": Layout(
        building=r"(.*?)/?[^/]+",
        rgb="**/image/*.jpg",
        depth="**/depth_bfx/*.png",
        one_a_folder=True,
        depth_scale=1000,
        rotated_bits=3,
        intrinsics="**/intrinsics.txt",
        note="depth_bfx is SUN RGB-D's depth with filled holes",
    ),
    # github.com/ScanNet/ScanNet, SensReader/python: what its reader.py exports.
    "scannet": Layout(
        building=r"(.*scene\d+)_\d+",  # the second number counts the scans of one room
        rgb="**/color/*.jpg",
        depth="**/depth/*.png",
        depth_scale=1000,
        intrinsics="**/intrinsic/intrinsic_depth.txt",
        intrinsics_of="depth",
        note="ScanNet's colour camera is a few centimetres beside its depth camera; colour is resized, not registered",
    ),
    # github.com/apple/ARKitScenes, its page on the data: millimetres, confidence 0 to 2, a pincam a frame.
    "arkitscenes": Layout(
        rgb="**/lowres_wide/*.png",
        depth="**/lowres_depth/*.png",
        depth_scale=1000,
        intrinsics="**/lowres_wide_intrinsics/*.pincam",
        intrinsics_of="rgb",
        mask="**/confidence/*.png",
        mask_min=2,
    ),
    # record3d.app, export "EXR + JPG sequence", as docs.nerf.studio describes it: metres, cameras in metadata.json.
    "record3d": Layout(
        rgb="**/rgb/*",
        depth="**/depth/*.exr",
        depth_scale=1,
        intrinsics="**/metadata.json",
        intrinsics_of="rgb",
    ),
    # github.com/apple/ml-hypersim: metres from the camera's centre, 60 degrees across 1024 x 768.
    "hypersim": Layout(
        building=r"(.*?)/?cam_\d+",
        rgb="**/images/scene_*_final_preview/frame.*.tonemap.jpg",
        depth="**/images/scene_*_geometry_hdf5/frame.*.depth_meters.hdf5",
        depth_scale=1,
        depth_kind="ray",
        depth_key="dataset",
        intrinsics=(886.81, 886.81, 511.5, 383.5),
        note="some of Hypersim's scenes have a tilted lens (metadata_camera_parameters.csv), for which this camera is wrong",
    ),
    # github.com/diode-dataset/diode-devkit and its intrinsics.txt; masks are 0 and 1.
    "diode": Layout(
        building=r"(.*?)/?scan_\d+",
        rgb="**/*.png",
        depth="**/*_depth.npy",
        depth_scale=1,
        intrinsics=(886.81, 927.06, 512, 384),
        mask="**/*_depth_mask.npy",
        note="issue 20 of diode-devkit doubts the published camera: it finds 42.3 degrees across in place of 60",
    ),
    # github.com/cleinc/bts: NYU's raw frames, synchronised and registered; the camera is that of NYU's toolbox.
    "nyu-raw": Layout(
        rgb="**/rgb_*.jpg",
        depth="**/sync_depth_*.png",
        depth_scale=1000,
        intrinsics=(518.858, 519.470, 325.582, 253.736),
        note="the frames have a border without colour of 6 to 8 pixels, which edges and keypoints show",
    ),
}


def find_frames(root: Path, layout: Layout) -> list[Frame]:
    """The frames below `root`, scene by scene; UserError, saying what is missing, where there is none."""
    where = " and ".join(str(root / pattern) for pattern in layout.pairs or (layout.rgb, layout.depth))
    if not layout.pairs:
        rgb, depth = find_files(root, layout.rgb, RGB_SUFFIXES), find_files(root, layout.depth, DEPTH_SUFFIXES)
        if layout.one_a_folder:
            rgb, depth = (_name_by_folder(files) for files in (rgb, depth))
        return pair_by_name(rgb, depth, where)
    lists = [{folders: path for (folders, _), path in find_files(root, pattern).items()} for pattern in layout.pairs]
    scenes = sorted(set.intersection(*(set(of) for of in lists)))
    if not scenes:
        raise UserError(f"{where}: got no such files; expected lists of the frames; give the folder that holds the scenes")
    if len(lists) == 1:
        return [frame for scene in scenes for frame in read_pairs(lists[0][scene], scene, layout.max_gap_s)]
    return [frame for scene in scenes for frame in pair_by_time(lists[0][scene], lists[1][scene], scene, layout.max_gap_s)]


def name_building(frame: Frame, layout: Layout, root: Path) -> str:
    """The building that a frame belongs to: by its scene's path or, where that is empty, the root's name."""
    matched = re.fullmatch(layout.building, frame.scene)
    name = matched[1] if matched else frame.scene
    return re.sub(r"[^\w.-]+", "_", name or root.resolve().name).strip("._-") or "scene"


def _name_by_folder(files: Files) -> Files:
    """The same files without their names; each must be alone in its folder."""
    named: Files = {}
    for (folders, _), path in files.items():
        key = folders, ()
        if key in named:
            raise UserError(f"{path}: got a second file beside {named[key].name}; expected one a folder; remove one")
        named[key] = path
    return named
