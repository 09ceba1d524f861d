"""What every arm is made with: training, search, scores, and the folder that keeps them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

import data
from data import Augment, SegmentationDataset, TrainStream
from eval import processes
from eval.arms import ArmName
from eval.checkpoint import read_checkpoint, save_checkpoint
from eval.device import device_named
from eval.inference import Coarse, coarse_unaries, evaluate
from eval.metrics import SplitCounts, harm_rate, scores
from eval.tuning.search import search
from models import CrfConfig, Segmenter, SegmenterConfig, without_pretrained
from train.logits_cache import LogitsCache
from train.loop import fit, progress_bar
from train.objective import weighed
from train.phase import Phase, check_phases
from train.recipe import Recipe
from train.run import Run
from train.run_folder import Found, RunFolder, as_json, read_json, write_json
from train.tracker import NoTracker, Tracker
from train.tracking import RunTracker

MAX_LOGITS = 4 * 10**9  # bytes: five networks on VOC's val take 1.3 at stride 16, 20 at stride 4

Result = dict[str, Any]  # one entry of results.json's "runs"


class ArmRunner:
    """Makes and keeps the parts of a comparison's arms.

    With several processes every one of them calls every method; the first alone writes. They
    share the run folder: on several machines it lies on a file system that all of them see.

    Args:
        name: of the recipe.
        recipe: everything the arms depend on.
        out: the run folder.
        resume: keep the arms that are finished, go on with one that was interrupted.

    Raises:
        FileExistsError: the folder holds a run, and `resume` is off.
        ValueError: it holds a run of another configuration.
    """

    def __init__(self, name: str, recipe: Recipe, out: Path, *, resume: bool) -> None:
        self.name = name
        self.recipe = recipe
        self.resume = resume
        self.device = device_named(recipe.device)
        self.config = as_json(asdict(recipe))
        self.data = data.config_to_dict(recipe.data)
        self.train = data.build(recipe.data, "train")
        self.tune = data.build(recipe.data, "tune")
        self.report = data.build(recipe.data, "report")
        both = {"tune": self.tune, "report": self.report}
        self.scored_splits = {split: both[split] for split in recipe.score}
        recipe.check_start()
        check_phases(recipe, len(self.train.classes))
        self.folder = RunFolder(out, self.config, resume=resume)
        self.group = self.folder.name  # of the W&B runs; an ablation puts its own name here
        self.console = Console(quiet=not processes.is_first())
        self._logits = LogitsCache(MAX_LOGITS)
        self._said: set[tuple[str, int]] = set()

    @cached_property
    def _label_pixels(self) -> Tensor:
        """Counted once for all phases: it reads the whole training split."""
        return data.label_pixels(self.train)

    def once(
        self,
        arm: ArmName,
        seed: int,
        make: Callable[[Tracker], Result],
        found: Found | None = None,
    ) -> Result:
        """The result kept in the folder, or made now from what a search found, and logged."""
        path = self.folder.arm(arm, seed) / "result.json"
        kept: Result | None = processes.from_first(read_json(path))
        if kept is not None:
            self._say(kept, "kept")
            return kept
        self.folder.sign()
        began = time.perf_counter()
        with self._tracker(arm, seed) as tracker:
            result = make(tracker)
            tracker.log_scores(result["metrics"])
            *_, last = self.scored_splits.values()
            tracker.log_images(self.load(arm, seed), last)
            self._log_checkpoints(tracker, self.folder.checkpoint(arm, seed))
        result["wall_seconds"] = time.perf_counter() - began
        if found is not None:
            result["search"] = result["search"] or found.rows  # or that of a second search
            result["wall_seconds"] += found.seconds
        if processes.is_first():
            write_json(path, result)
        self.folder.sign()
        processes.barrier()
        self._say(result, f"{result['wall_seconds']:.0f} s")
        return result

    def _log_checkpoints(self, tracker: Tracker, result: Path) -> None:
        """The arm's result, which is the best too where nothing better was seen on the way."""
        best = result.with_name("best.pt")
        if best.is_file():
            tracker.log_checkpoint(best, ("best",))
            tracker.log_checkpoint(result, ("latest",))
        else:
            tracker.log_checkpoint(result, ("best", "latest"))

    def fit(self, segmenter: Segmenter, phase: Phase, tracker: Tracker) -> int:
        """Train `segmenter`, in place; the steps that were taken."""
        config = phase.fit
        if config.loss.balance:
            config = replace(config, loss=weighed(config.loss, self._label_pixels))
        augment = None if phase.learns.network else self.recipe.crf_augment
        stream = TrainStream(
            self.train,
            Augment(augment or self.recipe.augment),
            phase.fit.batch_size,
            phase.seed,
            rank=processes.rank(),
            num_processes=processes.num_processes(),
        )
        run = Run(
            arm=phase.learns,
            seed=phase.seed,
            directory=self.folder.arm(phase.name, phase.seed) / phase.folder,
            data=self.data,
            workers=self.recipe.workers,
            device=self.device,
            compile=self.recipe.compile,
            log_every=self.recipe.log_every,
            save_every=self.recipe.save_every,
            max_corrupt=self.recipe.max_corrupt,
            first_step=phase.first_step,
        )
        return fit(
            segmenter,
            stream,
            config,
            run,
            tracker,
            resume=self.resume,
            tune=self.tune,
        )

    def search(self, arm: ArmName, seed: int) -> Found:
        """The post-hoc CRF of an arm's network, kept beside it."""
        path = self.folder.arm(arm, seed) / "search.json"
        kept = processes.from_first(read_json(path))
        if kept is not None:
            return Found(CrfConfig(**kept["best"]), kept["rows"], kept["seconds"])
        began = time.perf_counter()
        with progress_bar() as progress:
            task = progress.add_task(f"search on {arm}", total=None, detail="")
            best, rows = search(
                self.load(arm, seed),
                self.recipe.crf,
                self.tune,
                self._coarse(arm, seed, self.tune),
                self.recipe.search,
                lambda done, total: progress.update(task, completed=done, total=total),
            )
        found = Found(best, rows, time.perf_counter() - began)
        if processes.is_first():
            write_json(path, asdict(found))
        return found

    def scored(
        self,
        arm: ArmName,
        seed: int,
        segmenter: Segmenter,
        network_steps: int,
        network_of: ArmName | None = None,
    ) -> Result:
        """One entry of results.json; `network_of` names the arm whose network this is."""
        result: Result = {
            "arm": arm,
            "seed": seed,
            "network_steps": network_steps,
            "crf": segmenter.describe_crf(),
            "search": None,
            "metrics": {},
            "before_crf": {},
            "harm_rate": {},
        }
        for split, dataset in self.scored_splits.items():
            coarse = self._coarse(network_of or arm, seed, dataset)
            save_to = self.folder.predictions(arm, seed) if split == "report" else None
            counts = evaluate(segmenter, dataset, coarse, save_to=save_to)
            self._keep_counts(counts, self.folder.counts(arm, seed, split))
            result["metrics"][split] = scores(counts)
            if segmenter.crf is not None:
                # Of the same network, wherever it came from: what the CRF itself did.
                before = self._counted(network_of, seed, split)
                if before is None:
                    before = evaluate(segmenter, dataset, coarse, use_crf=False)
                self._keep_counts(before, self.folder.counts(arm, seed, f"{split}-before-crf"))
                result["before_crf"][split] = scores(before)
                result["harm_rate"][split] = harm_rate(before, counts)
        return result

    def _counted(self, arm: ArmName | None, seed: int, split: str) -> SplitCounts | None:
        """What was counted when that arm was scored, if it was."""
        if arm is None or not self.folder.counts(arm, seed, split).is_file():
            return None
        return SplitCounts.load(self.folder.counts(arm, seed, split))

    def _keep_counts(self, counts: SplitCounts, path: Path) -> None:
        if processes.is_first():
            counts.save(path)

    def load(self, arm: ArmName, seed: int) -> Segmenter:
        """The model that an arm left, in eval mode."""
        return self.folder.load(arm, seed).to(self.device)

    def keep(self, segmenter: Segmenter, arm: ArmName, seed: int) -> None:
        """Write a checkpoint of an arm that was not trained here."""
        segmenter.to(self.device)
        if processes.is_first():
            path = self.folder.checkpoint(arm, seed)
            save_checkpoint(
                path, segmenter, data=self.data, arm=arm, seed=seed, step=0, training={}
            )
        processes.barrier()

    def network_config(self, *, frozen: bool) -> SegmenterConfig:
        """The recipe's network without a CRF, its BN frozen if that is wished and `frozen`.

        Nothing is fetched for it where its weights are given as a file.
        """
        model = self.recipe.model
        given = model.weights is not None or model.backbone_weights is not None
        return SegmenterConfig(
            num_classes=len(self.train.classes),
            network=without_pretrained(model.network) if given else model.network,
            freeze_batch_norm=model.freeze_batch_norm and frozen,
            min_size=model.min_size,
        )

    def _coarse(self, arm: ArmName, seed: int, split: SegmentationDataset) -> Coarse:
        """The network's logits of a split, computed once for all CRFs behind it."""
        return self._logits.of(
            (f"{arm}-seed{seed}", *split.names),
            lambda: coarse_unaries(self.load(arm, seed), split),
        )

    def _say(self, result: Result, remark: str) -> None:
        """One line for each arm, however often it is built on."""
        key = (result["arm"], result["seed"])
        if key in self._said:
            return
        self._said.add(key)
        scores = [
            f"{split} mIoU {'–' if miou is None else format(miou, '.4f')}"
            for split, metrics in result["metrics"].items()
            for miou in [metrics["miou"]]
        ]
        self.console.print(f"{key[0]}-seed{key[1]}: {', '.join(scores)}, {remark}")

    def _tracker(self, arm: ArmName, seed: int) -> Tracker:
        if not processes.is_first():
            return NoTracker()
        return RunTracker(
            self.folder.arm(arm, seed),
            self.recipe.wandb,
            group=self.group,
            name=f"{arm}-seed{seed}",
            config={"recipe": self.name, "arm": arm, "seed": seed, **self.config},
            tags=(self.name, arm, self.folder.name),
            run_id=self._run_id(arm, seed),
        )

    def _run_id(self, arm: ArmName, seed: int) -> str | None:
        """The W&B run that a checkpoint belongs to, where only the checkpoint was kept of it."""
        path = self.folder.checkpoint(arm, seed)
        named = path.with_name("wandb_id.txt").is_file()
        if named or not self.resume or not path.is_file():
            return None
        found: str | None = read_checkpoint(path)["training"].get("run_id")
        return found
