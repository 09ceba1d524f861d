"""CamVid as SegNet publishes it: 480 x 360 frames, 11 classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from data.dataset import LabelSet, Split, label_set_of
from data.paired import Layout, ListedConfig, Pair, label_table
from data.reading import by_stem, require_folders, two_paths

# Ids 0..10 (Badrinarayanan et al., SegNet, TPAMI 2017) with their colours; 11 is void.
COLOURS = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
PUBLISHED = {"train": 367, "val": 101, "test": 233}


@dataclass(frozen=True)
class CamVidConfig(ListedConfig):
    """Say where CamVid lies and how it is split.

    By default train, tune and report are the published train, val and test. The masks are grey, of
    class ids.

    Attributes:
        root: the folder that holds train, trainannot, train.txt and so on.
        train_list, tune_list, report_list: names of lists in the root, without .txt. A line is the
            path of a frame and the path of its mask, of which the last folder and the name count:
            the lists of the SegNet tutorial hold paths of its authors' machine. Frames may be .png
            or .jpg, whatever the list says.
    """

    kind: ClassVar[str] = "camvid"

    root: Path = Path("CamVid")
    report_list: str = "test"

    def label_set(self) -> LabelSet:
        """Describe the 11 ids."""
        return label_set_of(tuple(COLOURS), self.scored, tuple(COLOURS.values()))

    def layout(self, split: Split) -> Layout:
        """Find the frames that the list of a split names."""
        require_folders(
            self.root,
            (),
            "CamVid in the layout of SegNet, with train, trainannot, train.txt, val, valannot, "
            "val.txt, test, testannot, test.txt directly below it; pass it as --data.root "
            ".../CamVid",
        )
        path = self.list_of(split)
        files: dict[str, dict[str, str]] = {}

        def file(listed: PurePosixPath) -> Path:
            folder = listed.parent.name
            if folder not in files:
                files[folder] = by_stem(self.root / folder, (".png", ".jpg"))
            return self.root / folder / files[folder].get(listed.stem, listed.name)

        pairs = []
        for line in self.lines_of(split):
            paths = two_paths(line)
            if paths is None:
                raise ValueError(
                    f"{path}: the line {line!r} is not two paths, of a frame and of its mask, each "
                    "with its folder"
                )
            pairs.append(Pair(paths[0].stem, file(paths[0]), file(paths[1])))
        return Layout(
            pairs=tuple(pairs),
            source=f"the list {path}",
            table=label_table(len(COLOURS), void=(len(COLOURS),)),
            published={"SegNet": PUBLISHED[path.stem]} if path.stem in PUBLISHED else {},
        )
