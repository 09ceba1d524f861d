"""Cityscapes: street scenes of 2048 x 1024, 19 classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from data.dataset import LabelSet, Split, label_set_of
from data.paired import Layout, Pair, RootedConfig, label_table
from data.reading import file_names, require_folders

# Cordts et al., The Cityscapes Dataset, CVPR 2016: the label id of every class that is evaluated,
# in the order of the train ids 0..18, and its colour. The other label ids of 0..33 are void.
LABELS = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
_TRAIN_IDS = {stored: label for label, (stored, _) in enumerate(LABELS.values())}

TABLES = {
    "labelIds": label_table(_TRAIN_IDS, void=[i for i in range(34) if i not in _TRAIN_IDS] + [255]),
    "labelTrainIds": label_table(len(LABELS)),
}
"""What the masks of either kind hold; 255 stands for the label id -1 (licence plates)."""

PUBLISHED = {"train": 2975, "val": 500}


@dataclass(frozen=True)
class CityscapesConfig(RootedConfig):
    """Say where Cityscapes lies and how it is split.

    By default train is the published train and both tune and report are the published val: the
    labels of its test split are not published. Whoever chooses on tune and scores on report should
    know that they are the same images, as in the papers.

    Attributes:
        root: the folder that holds leftImg8bit and gtFine.
        labels: which masks: labelIds as downloaded, or labelTrainIds
            (`python -m data prepare cityscapes`).
        train_folder, tune_folder, report_folder: folders of leftImg8bit and gtFine.
        scored: names of the classes whose IoU is averaged; empty for all.

    Raises:
        ValueError: a scored class does not exist, or a folder has no labels.
    """

    kind: ClassVar[str] = "cityscapes"

    root: Path = Path("cityscapes")
    labels: Literal["labelIds", "labelTrainIds"] = "labelIds"
    train_folder: str = "train"
    tune_folder: str = "val"
    report_folder: str = "val"
    scored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.label_set()
        if self.labels not in TABLES:
            raise ValueError(f"labels must be one of {', '.join(TABLES)}; got {self.labels!r}")
        if "test" in (self.train_folder, self.tune_folder, self.report_folder):
            raise ValueError(
                "the labels of the test split of Cityscapes are not published (its masks are "
                "void): choose train or val"
            )

    def label_set(self) -> LabelSet:
        """Describe the 19 ids."""
        return label_set_of(tuple(LABELS), self.scored, [colour for _, colour in LABELS.values()])

    def layout(self, split: Split) -> Layout:
        """Find all images of the cities of a split, sorted; a folder without any is an error."""
        chosen = getattr(self, f"{split}_folder")
        require_folders(
            self.root,
            (f"leftImg8bit/{chosen}", f"gtFine/{chosen}"),
            "the folder of Cityscapes, with leftImg8bit/{train,val}/CITY and "
            "gtFine/{train,val}/CITY below it; pass it as --data.root .../cityscapes",
        )
        images, masks = self.root / "leftImg8bit" / chosen, self.root / "gtFine" / chosen
        ending = "_leftImg8bit.png"
        pairs = []
        for city in sorted(file_names(images)):
            for file in sorted(file_names(images / city)):
                if file.endswith(ending):
                    name = file.removesuffix(ending)
                    mask = masks / city / f"{name}_gtFine_{self.labels}.png"
                    pairs.append(Pair(name, images / city / file, mask))
        if not pairs:
            raise FileNotFoundError(f"no image {images}/CITY/*{ending}; unpack leftImg8bit there")
        return Layout(
            pairs=tuple(pairs),
            source=f"the folder {images}",
            table=TABLES[self.labels],
            published={"Cityscapes": PUBLISHED[chosen]} if chosen in PUBLISHED else {},
        )
