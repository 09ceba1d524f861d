"""Scores of settings: from the folder where they are there, else from the crew."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.progress import Progress

from eval.tuning.bench import Answer, Bench
from eval.tuning.crew import Crew
from eval.tuning.filtered import by_widths
from eval.tuning.folder import TuneFolder
from eval.tuning.objective import Objective, Scores, total
from models import CrfConfig


class Scoring:
    """Scores settings on all images, and keeps every score at once.

    Args:
        crew: the images.
        folder: where scores are kept.
        scored: ids whose IoU is averaged.
        objective: what is maximised.
        floor: labels below it are left out, see `eval.tuning.picture`.
        progress: shows the images.

    Attributes:
        found: every setting with its scores, in order.
    """

    def __init__(
        self,
        crew: Crew,
        folder: TuneFolder,
        scored: Sequence[int],
        objective: Objective,
        floor: float,
        progress: Progress,
    ) -> None:
        self.crew = crew
        self.folder = folder
        self.scored = scored
        self.objective = objective
        self.floor = floor
        self.progress = progress
        kept = folder.kept(floor)
        self.found: dict[CrfConfig, Scores] = {k: v for k, v in kept.items() if k is not None}

    def __call__(self, stage: str, settings: Sequence[CrfConfig]) -> list[float]:
        """The values of some settings: what a `Method` asks for."""
        groups = by_widths([s for s in dict.fromkeys(settings) if s not in self.found])
        self._measure(stage, groups, self.floor)
        return [self.found[s].value(self.objective) for s in settings]

    def network_alone(self) -> Scores:
        """The scores of the network, with all labels."""
        kept = self.folder.kept(0.0).get(None)
        if kept is not None:
            return kept
        began = time.perf_counter()
        task = self.progress.add_task("network", total=len(self.crew.indices))
        (answers,) = self.crew.rounds(
            Bench.network_alone, [(0.0,)], done=lambda: self.progress.advance(task)
        )
        self._say(answers)
        scores = total([answer.value for answer in answers], self.scored)
        self.folder.keep(
            "network", None, scores, floor=0.0, seconds=time.perf_counter() - began,
            cpu_seconds=sum(answer.cpu_seconds for answer in answers),
        )  # fmt: skip
        return scores

    def with_all_labels(self, setting: CrfConfig) -> Scores:
        """A setting's scores without the label floor."""
        if self.floor == 0:
            return self.found[setting]
        kept = self.folder.kept(0.0).get(setting)
        return self._measure("all labels", [[setting]], 0.0)[setting] if kept is None else kept

    def best(self) -> CrfConfig:
        """The setting with the highest value, the first of equal ones."""
        return max(self.found, key=lambda setting: self.found[setting].value(self.objective))

    def _measure(
        self, stage: str, groups: Sequence[Sequence[CrfConfig]], floor: float
    ) -> dict[CrfConfig, Scores]:
        """The scores of settings in groups that share their widths, which are kept."""
        measured: dict[CrfConfig, Scores] = {}
        if not groups:
            return measured
        task = self.progress.add_task(stage, total=len(self.crew.indices) * len(groups))
        rounds = self.crew.rounds(
            Bench.settings,
            [(floor, group) for group in groups],
            done=lambda: self.progress.advance(task),
        )
        began = time.perf_counter()
        for group, answers in zip(groups, rounds, strict=True):
            self._say(answers)
            seconds = (time.perf_counter() - began) / len(group)
            cpu_seconds = sum(answer.cpu_seconds for answer in answers) / len(group)
            for k, setting in enumerate(group):
                scores = total([answer.value[k] for answer in answers], self.scored)
                measured[setting] = scores
                self.folder.keep(
                    stage, setting, scores, floor=floor, seconds=seconds, cpu_seconds=cpu_seconds
                )
            began = time.perf_counter()
        if floor == self.floor:
            self.found |= measured
        return measured

    def _say(self, answers: Sequence[Answer]) -> None:
        """Remarks of the processes, above the bar."""
        for answer in answers:
            for remark in answer.remarks:
                self.progress.console.print(remark)
