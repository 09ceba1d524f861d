"""The five arms: is joint training better than a post-hoc CRF?

All arms of a seed start from one checkpoint, see the same batches, and take the same
number S of network steps:

    start     the starting checkpoint as it is
    unary     start, the network alone trained for S steps
    post-hoc  unary, and a dense CRF found by search on the tune split
    crf-only  unary, frozen, and a CRF trained by gradient from the post-hoc values
    joint     start, network and CRF trained together for S steps, the CRF started from
              the post-hoc values found on start

Widths and weights are chosen on the tune split; the report split is only scored.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import data
from data import Augment, SegmentationDataset, TrainStream
from eval.arms import ArmName
from eval.checkpoint import save_checkpoint
from eval.inference import Coarse, coarse_unaries, evaluate
from eval.posthoc import search
from models import CrfConfig, Segmenter, SegmenterConfig, load_backbone_weights, load_weights
from train.arms import TRAINED
from train.fit_config import FitConfig
from train.loop import Run, fit, progress_bar
from train.recipe import Recipe
from train.run_folder import Found, RunFolder, as_json, read_json, write_json
from train.tracking import Tracker

Result = dict[str, Any]  # one entry of results.json's "runs"


class Comparison:
    """The five arms of a recipe, each run once and kept in the run folder.

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
        self.config = as_json(asdict(recipe))
        self.data = data.config_to_dict(recipe.data)
        self.train = data.build(recipe.data, "train")
        self.tune = data.build(recipe.data, "tune")
        self.report = data.build(recipe.data, "report")
        recipe.check_start()
        self.folder = RunFolder(out, self.config, resume=resume)
        self.console = Console()
        self._coarse_logits: dict[tuple[str, int, str], Coarse] = {}
        self._said: set[tuple[str, int]] = set()

    # The arms

    def run(self, arm: ArmName, seed: int) -> Result:
        """The result of one arm, and of those that it builds on."""
        if arm == "start":
            if seed != self.recipe.seeds[0]:
                raise ValueError(
                    f"start is made once, with the first of --seeds {self.recipe.seeds}; got "
                    f"--seed {seed}."
                )
            return self.start()
        return {
            "unary": self.unary,
            "post-hoc": self.post_hoc,
            "crf-only": self.crf_only,
            "joint": self.joint,
        }[arm](seed)

    def start(self) -> Result:
        """The starting checkpoint as it is."""
        seed = self.recipe.seeds[0]
        return self._once("start", seed, lambda tracker: self._start(seed, tracker))

    def _start(self, seed: int, tracker: Tracker) -> Result:
        torch.manual_seed(seed)
        model, steps = self.recipe.model, 0
        segmenter = Segmenter(self._network_config(frozen=model.weights is not None))
        if model.backbone_weights is not None:
            load_backbone_weights(segmenter.network, model.backbone_weights)
        if model.weights is not None:
            load_weights(segmenter.network, model.weights)
            self._keep(segmenter, "start", seed)
        else:
            assert self.recipe.start is not None  # check_start
            steps = self.recipe.start.steps
            self._fit(segmenter, "start", seed, self.recipe.start, tracker)
        return self._scored("start", seed, segmenter, steps)

    def unary(self, seed: int) -> Result:
        """The network alone, trained for S steps."""
        self.start()
        return self._once("unary", seed, lambda tracker: self._unary(seed, tracker))

    def _unary(self, seed: int, tracker: Tracker) -> Result:
        segmenter = self._from_start(crf=None)
        self._fit(segmenter, "unary", seed, self.recipe.fit, tracker)
        return self._scored("unary", seed, segmenter, self.recipe.fit.steps)

    def post_hoc(self, seed: int) -> Result:
        """Unary and the best CRF of the search."""
        self.unary(seed)
        found = self._search("unary", seed)
        return self._once("post-hoc", seed, lambda _: self._post_hoc(seed, found), found)

    def _post_hoc(self, seed: int, found: Found) -> Result:
        segmenter = self.folder.load("unary", seed).with_crf(found.best)
        self._keep(segmenter, "post-hoc", seed)
        return self._scored("post-hoc", seed, segmenter, self.recipe.fit.steps, "unary")

    def crf_only(self, seed: int) -> Result:
        """Unary frozen; the CRF learns, from the post-hoc values."""
        self.post_hoc(seed)
        return self._once("crf-only", seed, lambda tracker: self._crf_only(seed, tracker))

    def _crf_only(self, seed: int, tracker: Tracker) -> Result:
        found = self.folder.load("post-hoc", seed)
        assert found.config.crf is not None
        segmenter = found.with_crf(self._learnable(found.config.crf))
        crf_start = segmenter.describe_crf()
        self._fit(segmenter, "crf-only", seed, self.recipe.crf_fit, tracker)
        result = self._scored("crf-only", seed, segmenter, self.recipe.fit.steps, "unary")
        return {**result, "crf_start": crf_start}

    def joint(self, seed: int) -> Result:
        """Network and CRF together for S steps, the CRF from the values found on start."""
        self.start()
        found = self._search("start", self.recipe.seeds[0])
        return self._once("joint", seed, lambda tracker: self._joint(seed, found, tracker), found)

    def _joint(self, seed: int, found: Found, tracker: Tracker) -> Result:
        segmenter = self._from_start(crf=self._learnable(found.best))
        crf_start = segmenter.describe_crf()
        self._fit(segmenter, "joint", seed, self.recipe.fit, tracker)
        result = self._scored("joint", seed, segmenter, self.recipe.fit.steps)
        return {**result, "crf_start": crf_start}

    # What the arms are made of

    def _once(
        self,
        arm: ArmName,
        seed: int,
        make: Callable[[Tracker], Result],
        found: Found | None = None,
    ) -> Result:
        """The result kept in the folder, or made now from what a search found, and logged."""
        path = self.folder.arm(arm, seed) / "result.json"
        kept: Result | None = read_json(path)
        if kept is not None:
            self._say(kept, "kept")
            return kept
        self.folder.sign()
        began = time.perf_counter()
        with self._tracker(arm, seed) as tracker:
            result = make(tracker)
            tracker.log_scores(result["metrics"])
            tracker.log_images(self.folder.load(arm, seed), self.report)
        result["wall_seconds"] = time.perf_counter() - began
        if found is not None:
            result |= {"search": found.rows}
            result["wall_seconds"] += found.seconds
        write_json(path, result)
        self.folder.sign()
        self._say(result, f"{result['wall_seconds']:.0f} s")
        return result

    def _say(self, result: Result, remark: str) -> None:
        """One line for each arm, however often it is built on."""
        key = (result["arm"], result["seed"])
        if key in self._said:
            return
        self._said.add(key)
        scores = [
            f"{split} mIoU {'–' if miou is None else format(miou, '.4f')}"
            for split in ("tune", "report")
            for miou in [result["metrics"][split]["miou"]]
        ]
        self.console.print(f"{key[0]}-seed{key[1]}: {', '.join(scores)}, {remark}")

    def _fit(
        self, segmenter: Segmenter, arm: ArmName, seed: int, config: FitConfig, tracker: Tracker
    ) -> None:
        stream = TrainStream(self.train, Augment(self.recipe.augment), config.batch_size, seed)
        run = Run(TRAINED[arm], seed, self.folder.arm(arm, seed), self.data, self.recipe.workers)
        fit(segmenter, stream, config, run, tracker, resume=self.resume)

    def _search(self, arm: ArmName, seed: int) -> Found:
        """The post-hoc CRF of an arm's network, kept beside it."""
        path = self.folder.arm(arm, seed) / "search.json"
        kept = read_json(path)
        if kept is not None:
            return Found(CrfConfig(**kept["best"]), kept["rows"], kept["seconds"])
        began = time.perf_counter()
        with progress_bar() as progress:
            task = progress.add_task(f"search on {arm}", total=None, detail="")
            best, rows = search(
                self.folder.load(arm, seed),
                self.recipe.crf,
                self.tune,
                self._coarse(arm, seed, self.tune, "tune"),
                self.recipe.search,
                lambda done, total: progress.update(task, completed=done, total=total),
            )
        found = Found(best, rows, time.perf_counter() - began)
        write_json(path, asdict(found))
        return found

    def _learnable(self, found: CrfConfig) -> CrfConfig:
        """The searched widths and weights in the recipe's learnable form."""
        form = self.recipe.crf
        return replace(found, kernel_weights=form.kernel_weights, compatibility=form.compatibility)

    def _scored(
        self,
        arm: ArmName,
        seed: int,
        segmenter: Segmenter,
        network_steps: int,
        network_of: ArmName | None = None,
    ) -> Result:
        """One entry of results.json; `network_of` names the arm whose network this is."""
        metrics = {
            name: evaluate(
                segmenter,
                split,
                self._coarse(network_of or arm, seed, split, name),
                save_to=self.folder.predictions(arm, seed) if name == "report" else None,
            )
            for name, split in (("tune", self.tune), ("report", self.report))
        }
        return {
            "arm": arm,
            "seed": seed,
            "network_steps": network_steps,
            "crf": segmenter.describe_crf(),
            "search": None,
            "metrics": metrics,
        }

    def _coarse(self, arm: ArmName, seed: int, split: SegmentationDataset, name: str) -> Coarse:
        """The network's logits of a split, computed once for all CRFs behind it."""
        key = (arm, seed, name)
        if key not in self._coarse_logits:
            self._coarse_logits[key] = coarse_unaries(self.folder.load(arm, seed), split)
        return self._coarse_logits[key]

    def _network_config(self, *, frozen: bool) -> SegmenterConfig:
        model = self.recipe.model
        return SegmenterConfig(
            num_classes=len(self.train.classes),
            network=model.network,
            freeze_batch_norm=model.freeze_batch_norm and frozen,
            min_size=model.min_size,
        )

    def _from_start(self, crf: CrfConfig | None) -> Segmenter:
        """The starting network, its BN frozen if the recipe says so, with a CRF or none."""
        started = self.folder.load("start", self.recipe.seeds[0])
        return started.with_crf(crf, freeze_batch_norm=self.recipe.model.freeze_batch_norm)

    def _keep(self, segmenter: Segmenter, arm: ArmName, seed: int) -> None:
        """A checkpoint of an arm that was not trained here."""
        path = self.folder.checkpoint(arm, seed)
        save_checkpoint(path, segmenter, data=self.data, arm=arm, seed=seed, step=0, training={})

    # Logging

    def _tracker(self, arm: ArmName, seed: int) -> Tracker:
        return Tracker(
            self.folder.arm(arm, seed),
            self.recipe.wandb,
            group=self.folder.name,
            name=f"{arm}-seed{seed}",
            config={"recipe": self.name, "arm": arm, "seed": seed, **self.config},
        )
