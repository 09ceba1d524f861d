"""What a run has to tell, whoever listens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, final

from data import SegmentationDataset
from models import Segmenter

Self = TypeVar("Self", bound="Tracker")  # typing's own is of Python 3.11


class Tracker(ABC):
    """Takes what a run has to tell. Use as a context manager."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finish(succeeded=kind is None)

    @property
    @abstractmethod
    def run_id(self) -> str | None:
        """Of the W&B run, which a run that is resumed goes on with."""

    @abstractmethod
    def finish(self, *, succeeded: bool) -> None:
        """Nothing more comes."""

    @abstractmethod
    def rewind(self, step: int) -> None:
        """Forget the lines after a step: a resumed run writes them again."""

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars after a step."""

    @abstractmethod
    def log_evaluation(
        self,
        step: int,
        segmenter: Segmenter,
        dataset: SegmentationDataset,
        metrics: Mapping[str, Any],
        *,
        split: str = "tune",
    ) -> None:
        """Scores, a table of the classes, pictures with masks, and the CRF, after a step.

        Args:
            step: of the training.
            segmenter: as it is now; its modes are left as they are.
            dataset: the split that was scored.
            metrics: its `eval.metrics.scores`.
            split: its name.
        """

    @abstractmethod
    def log_scores(self, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """The final scores, {split: `eval.metrics.scores`}; scalars and a table."""

    @abstractmethod
    def log_images(self, segmenter: Segmenter, dataset: SegmentationDataset) -> None:
        """Images of a split with true and predicted masks, and the CRF, of a finished run."""

    @abstractmethod
    def log_checkpoint(self, path: Path, aliases: Sequence[str]) -> None:
        """Keep a checkpoint as a version of the run's artifact.

        Args:
            path: of the file. It is not copied: from here on it has to stay as it is.
            aliases: of this version, for example "best".

        Raises:
            FileNotFoundError: there is no such file.
        """


@final
class NoTracker(Tracker):
    """Nothing is kept: for the processes that are not the first."""

    @property
    def run_id(self) -> str | None:
        """None."""
        return None

    def finish(self, *, succeeded: bool) -> None:
        """Do nothing, as all of the following."""

    def rewind(self, step: int) -> None:
        """Nothing."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def log_evaluation(
        self,
        step: int,
        segmenter: Segmenter,
        dataset: SegmentationDataset,
        metrics: Mapping[str, Any],
        *,
        split: str = "tune",
    ) -> None:
        """Nothing."""

    def log_scores(self, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """Nothing."""

    def log_images(self, segmenter: Segmenter, dataset: SegmentationDataset) -> None:
        """Nothing."""

    def log_checkpoint(self, path: Path, aliases: Sequence[str]) -> None:
        """Nothing."""
