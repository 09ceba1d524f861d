"""The experiment: is training network and CRF together better than a post-hoc CRF?

Five arms answer it. All arms of a seed start from one checkpoint, see the same batches, and take
the same number S of network steps, so no gain is only longer training. Every seed has a start of
its own with `Recipe.start_per_seed`:

    start     the starting checkpoint as it is
    unary     start, the network alone trained for S steps
    post-hoc  unary, and a dense CRF found by search on the tune split
    crf-only  unary, frozen, and a CRF trained by gradient from the post-hoc values
    joint     start, network and CRF trained together for S steps, the CRF started from
              the post-hoc values found on start; with `Recipe.search_again`, found once more
              behind the trained network; with `Recipe.crf_last`, trained once more there

With `Recipe.search.bias` every CRF has one more number, a bias of the labels in front of it: that
of post-hoc is searched with it, and a CRF that training has learnt gets its own afterwards.
Widths, weights and biases are chosen on the tune split; the report split is only scored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from rich.console import Console
from torch import Tensor

import data
from data import Augment, SegmentationDataset, TrainStream
from eval.grid import beside, evenly_spaced
from eval.inference import Coarse, coarse_unaries, evaluate
from eval.metrics import SplitCounts, harm_rate, scores
from eval.report import print_report, write_report
from eval.runs import comparisons, read_run
from eval.search import direction_of, search
from eval.tables import comparison_table, headline
from models import (
    CrfConfig,
    Segmenter,
    SegmenterConfig,
    load_backbone_weights,
    load_weights,
    without_pretrained,
)
from models.crf import in_form
from models.registry import at_output_stride, build_network
from runtime import distributed
from runtime.checkpoint import read_checkpoint, save_checkpoint
from runtime.distributed import device_named
from runtime.progress import progress_bar
from runtime.run_folder import ARMS, ArmName, Found, RunFolder, as_json, read_json, write_json
from train.bias import tried
from train.loop import fit
from train.losses import check_class_weights, weighed
from train.optim import build_optimizer
from train.recipe import FitConfig, Recipe
from train.stage import BOTH, CRF, NETWORK, Stage, Trainable, check_names, only_learning
from train.tracking import NoTracker, RunTracker, Tracker

Result = dict[str, Any]  # one entry of results.json's "runs"


class Comparison:
    """The five arms of a recipe, each made once and kept in the run folder.

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
        self.recipe = recipe
        self.runner = ArmRunner(name, recipe, out, resume=resume)

    def run(self, arm: ArmName, seed: int) -> Result:
        """Make one arm, and those that it builds on."""
        check_learning(self.recipe, arm, len(self.runner.train_split.classes))
        if arm == "start":
            if seed not in self.recipe.start_seeds:
                raise ValueError(
                    f"start is made with --seed {' or '.join(map(str, self.recipe.start_seeds))}; "
                    f"got --seed {seed}."
                )
            return self.start(seed)
        return {
            "unary": self.unary,
            "post-hoc": self.post_hoc,
            "crf-only": self.crf_only,
            "joint": self.joint,
        }[arm](seed)

    def start(self, seed: int) -> Result:
        """Make the starting checkpoint: read its weights, or train it in one stage or two."""
        recipe, runner = self.recipe, self.runner
        seed = recipe.start_seed(seed)

        def make(tracker: Tracker) -> Result:
            torch.manual_seed(seed)
            segmenter = runner.untrained_segmenter()
            if recipe.start is None or recipe.model.weights is not None:
                runner.save(segmenter, "start", seed)
                return runner.score("start", seed, segmenter, 0)
            finish = recipe.finish
            folder = "" if finish is None else "first"
            steps = runner.train(segmenter, "start", seed, recipe.start, NETWORK, tracker, folder)
            if finish is not None:
                segmenter = segmenter.finished(
                    finish.output_stride, freeze=finish.freeze_batch_norm
                )
                steps += runner.train(
                    segmenter, "start", seed, finish.fit, NETWORK, tracker, first_step=steps
                )
            return runner.score("start", seed, segmenter, steps)

        return runner.once("start", seed, make)

    def unary(self, seed: int) -> Result:
        """Train the network alone for S steps."""
        self.start(seed)

        def make(tracker: Tracker) -> Result:
            segmenter = self._from_start(seed, crf=None)
            steps = self.runner.train(segmenter, "unary", seed, self.recipe.fit, NETWORK, tracker)
            return self.runner.score("unary", seed, segmenter, steps)

        return self.runner.once("unary", seed, make)

    def post_hoc(self, seed: int) -> Result:
        """Put the best CRF of the search behind unary."""
        steps = self.unary(seed)["network_steps"]
        found = self.runner.search("unary", seed)

        def make(_: Tracker) -> Result:
            segmenter = self.runner.load("unary", seed).with_crf(found.best)
            segmenter.add_label_bias(self.runner.label_bias(found))
            self.runner.save(segmenter, "post-hoc", seed)
            result = self.runner.score("post-hoc", seed, segmenter, steps, network_of="unary")
            return {**result, **self._bias_of(found)}

        return self.runner.once("post-hoc", seed, make, found)

    def crf_only(self, seed: int) -> Result:
        """Freeze unary and train the CRF, from the post-hoc values."""
        steps = self.post_hoc(seed)["network_steps"]
        found = self.runner.search("unary", seed)

        def make(tracker: Tracker) -> Result:
            crf = in_form(found.best, self.recipe.crf)
            segmenter = self.runner.load("unary", seed).with_crf(crf)
            crf_start = segmenter.describe_crf()
            self.runner.train(segmenter, "crf-only", seed, self.recipe.crf_fit, CRF, tracker)
            bias: Result = {}
            if self.recipe.search.bias:
                bias, _ = self.runner.add_best_bias(segmenter, found)
                self.runner.save(segmenter, "crf-only", seed)
            result = self.runner.score("crf-only", seed, segmenter, steps, network_of="unary")
            return {**result, "crf_start": crf_start, **bias}

        return self.runner.once("crf-only", seed, make)

    def joint(self, seed: int) -> Result:
        """Train network and CRF together for S steps, the CRF from the values found on start."""
        self.start(seed)
        recipe, runner = self.recipe, self.runner
        found = runner.search("start", recipe.start_seed(seed))
        ends_joint = recipe.crf_last is None and not recipe.search_again

        def make(tracker: Tracker) -> Result:
            segmenter = self._from_start(seed, crf=in_form(found.best, recipe.crf))
            crf_start = segmenter.describe_crf()
            done = 0
            if recipe.crf_first is not None:
                done = runner.train(
                    segmenter, "joint", seed, recipe.crf_first, CRF, tracker, "first"
                )
            folder = "" if ends_joint else "trained"
            steps = runner.train(
                segmenter, "joint", seed, recipe.fit, BOTH, tracker, folder, first_step=done
            )
            rows, bias = None, {}
            if recipe.search_again:
                runner.save(segmenter, "joint", seed)
                again = runner.search("joint", seed)
                rows, bias = again.rows, self._bias_of(again)
                searched = segmenter.with_crf(
                    in_form(again.best, recipe.crf) if recipe.crf_last else again.best
                )
                searched.add_label_bias(runner.label_bias(again))
                if recipe.search.bias:
                    best = max(row["miou"] for row in rows)
                    learnt_bias, miou = runner.add_best_bias(segmenter, again)
                    tune_miou = {"searched": best, "learnt": miou}
                    bias = {"tune_miou": tune_miou, **(bias if best > miou else learnt_bias)}
                    segmenter = searched if best > miou else segmenter
                else:
                    segmenter = searched
            if recipe.crf_last is not None:
                done += steps
                runner.train(
                    segmenter, "joint", seed, recipe.crf_last, CRF, tracker, "last", first_step=done
                )
            if not ends_joint:
                runner.save(segmenter, "joint", seed)
            result = runner.score("joint", seed, segmenter, steps)
            return {**result, "crf_start": crf_start, "search": rows, **bias}

        return runner.once("joint", seed, make, found)

    def _bias_of(self, found: Found) -> Result:
        """Say in a result which bias was found, where the recipe searches one."""
        return {"label_bias": {"bias": found.bias}} if self.recipe.search.bias else {}

    def _from_start(self, seed: int, crf: CrfConfig | None) -> Segmenter:
        """Load the starting network, its BN frozen if the recipe says so, with a CRF or none."""
        started = self.runner.load("start", self.recipe.start_seed(seed))
        # What the training of start has frozen stays so.
        frozen = self.recipe.model.freeze_batch_norm or started.config.freeze_batch_norm
        return started.with_crf(crf, freeze_batch_norm=frozen)


# Refuse, before anything is trained, what does not fit the data or the network.


def check_stages(recipe: Recipe, num_classes: int) -> None:
    """Raise ValueError where a stage does not fit data or network."""
    trained = recipe.model.weights is None
    finish = recipe.finish if trained else None
    if finish is not None and finish.output_stride is not None:
        at_output_stride(recipe.model.network, finish.output_stride)
    with torch.device("meta"):
        network = build_network(without_pretrained(recipe.model.network), num_classes)
    start = (recipe.start, None if finish is None else finish.fit)
    for config in (*start, recipe.fit, recipe.crf_first, recipe.crf_last, recipe.crf_fit):
        if config is not None:
            check_names(network, config.frozen)
            check_class_weights(config.loss.class_weights, num_classes)


STAGES: dict[ArmName, tuple[tuple[str, Trainable], ...]] = {
    "start": (),
    "unary": (("fit", NETWORK),),
    "post-hoc": (("fit", NETWORK),),
    "crf-only": (("fit", NETWORK), ("crf_fit", CRF)),
    "joint": (("crf_first", CRF), ("fit", BOTH), ("crf_last", CRF)),
}
"""Stages of each arm after start, by field of the recipe; those of arms it builds on included."""


def check_learning(recipe: Recipe, arm: ArmName, num_classes: int) -> None:
    """Raise ValueError where a stage of the arm has nothing to learn."""
    crf = CrfConfig(**asdict(recipe.crf))
    with torch.device("meta"):
        network = without_pretrained(recipe.model.network)
        segmenter = Segmenter(SegmenterConfig(num_classes, network, crf))
    for name, learns in STAGES[arm]:
        config: FitConfig | None = getattr(recipe, name)
        if config is not None:
            with only_learning(segmenter, learns, config.frozen):
                try:
                    build_optimizer(segmenter, learns, config)
                except ValueError as error:
                    raise ValueError(f"--{name.replace('_', '-')}: {error}") from error


# What every arm is made with: training, search, scores, and the folder that keeps them.

MAX_LOGITS = 4 * 10**9  # bytes: five networks on VOC's val take 1.3 at stride 16, 20 at stride 4


class ArmRunner:
    """Train, search, score and save for the arms of a comparison.

    With several processes every one of them calls every method; the first alone writes. They
    share the run folder: on several machines it lies on a file system that all of them see.

    Args:
        name, recipe, out, resume: as of `Comparison`.
    """

    def __init__(self, name: str, recipe: Recipe, out: Path, *, resume: bool) -> None:
        self.name = name
        self.recipe = recipe
        self.resume = resume
        self.device = device_named(recipe.device)
        self.config = {"recipe": name, **as_json(asdict(recipe))}
        self.data = data.config_to_dict(recipe.data)
        self.train_split = data.build(recipe.data, "train")
        self.tune = data.build(recipe.data, "tune")
        self.report = data.build(recipe.data, "report")
        both = {"tune": self.tune, "report": self.report}
        self.scored_splits = {split: both[split] for split in recipe.score}
        recipe.check_start()
        check_stages(recipe, len(self.train_split.classes))
        self.folder = RunFolder(out, self.config, resume=resume)
        self.group = self.folder.name  # of the W&B runs; an ablation puts its own name here
        self.console = Console(quiet=not distributed.is_first())
        for said in data.suspicions(recipe.data) if distributed.is_first() else ():
            self.console.print(f"data: {said} (`python -m data verify` says more)", markup=False)
        self._logits = LogitsCache(MAX_LOGITS)
        self._said: set[tuple[str, int]] = set()

    @cached_property
    def _label_pixels(self) -> Tensor:
        """Pixels of each label, counted once for all stages: it reads the whole training split."""
        return data.label_pixels(self.train_split)

    @cached_property
    def _direction(self) -> Tensor | None:
        """Direction of the bias, (L,), where the search has one: it may read the training split."""
        config = self.recipe.search
        return direction_of(config.bias_direction, self.train_split) if config.bias else None

    def once(
        self,
        arm: ArmName,
        seed: int,
        make: Callable[[Tracker], Result],
        found: Found | None = None,
    ) -> Result:
        """Return the result in the folder; or make it, from what a search found, and log it."""
        path = self.folder.arm(arm, seed) / "result.json"
        finished: Result | None = distributed.from_first(read_json(path))
        if finished is not None:
            self._say(finished, "kept")
            return finished
        self.folder.sign()
        began = time.perf_counter()
        with self._tracker(arm, seed) as tracker:
            result = make(tracker)
            tracker.log_scores(result["metrics"])
            *_, last = self.scored_splits.values()
            tracker.log_images(self.load(arm, seed), last)
            checkpoint = self.folder.checkpoint(arm, seed)
            best = checkpoint.with_name("best.pt")
            if best.is_file():
                tracker.log_checkpoint(best, ("best",))
            tracker.log_checkpoint(
                checkpoint, ("latest",) if best.is_file() else ("best", "latest")
            )
        result["wall_seconds"] = time.perf_counter() - began
        if found is not None:
            result["search"] = result["search"] or found.rows  # or that of a second search
            result["wall_seconds"] += found.seconds
        if distributed.is_first():
            write_json(path, result)
        self.folder.sign()
        distributed.barrier()
        self._say(result, f"{result['wall_seconds']:.0f} s")
        return result

    def train(
        self,
        segmenter: Segmenter,
        arm: ArmName,
        seed: int,
        config: FitConfig,
        learns: Trainable,
        tracker: Tracker,
        folder: str = "",
        *,
        first_step: int = 0,
    ) -> int:
        """Train `segmenter`, in place, for one stage of an arm.

        Args:
            segmenter: network and CRF.
            arm: whose training it is.
            seed: of the batches.
            config: the numbers.
            learns: the parts that learn.
            tracker: takes the lines.
            folder: of the checkpoint within the arm's, if not directly in it.
            first_step: steps that the arm's earlier stages have taken.

        Returns:
            The steps that were taken.
        """
        if config.loss.balance:
            config = replace(config, loss=weighed(config.loss, self._label_pixels))
        augment = None if learns.network else self.recipe.crf_augment
        stream = TrainStream(
            self.train_split,
            Augment(augment or self.recipe.augment),
            config.batch_size,
            seed,
            rank=distributed.rank(),
            num_processes=distributed.num_processes(),
        )
        stage = Stage(
            arm=arm,
            seed=seed,
            fit=config,
            learns=learns,
            directory=self.folder.arm(arm, seed) / folder,
            data=self.data,
            device=self.device,
            execution=self.recipe,
            first_step=first_step,
        )
        return fit(segmenter, stream, stage, tracker, resume=self.resume, tune=self.tune)

    def search(self, arm: ArmName, seed: int) -> Found:
        """Search the post-hoc CRF of an arm's network, or read what was found."""
        path = self.folder.arm(arm, seed) / "search.json"
        stored = distributed.from_first(read_json(path))
        if stored is not None:
            return Found(**{**stored, "best": CrfConfig(**stored["best"])})
        began = time.perf_counter()
        with progress_bar() as progress:
            task = progress.add_task(f"search on {arm}", total=None)
            best, bias, rows = search(
                self.load(arm, seed),
                self.recipe.crf,
                self.tune,
                self._coarse(arm, seed, self.tune),
                self.recipe.search,
                self._direction,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
        found = Found(best, rows, time.perf_counter() - began, bias)
        if distributed.is_first():
            write_json(path, asdict(found))
        return found

    def label_bias(self, found: Found) -> list[float]:
        """Return what the bias that was found takes from the logits of each label; [] for none."""
        if self._direction is None or found.bias == 0:
            return []
        taken: list[float] = (found.bias * self._direction).tolist()
        return taken

    def add_best_bias(self, segmenter: Segmenter, found: Found) -> tuple[Result, float]:
        """Give a learnt CRF the bias that is best for it on the images of the search; in place.

        Tried are those of the search's grid, the one that the search `found`, and then both
        neighbours of the best, as in the rounds of the search.

        Returns:
            The entry of the result, and the mean IoU on these images.
        """
        config, direction = self.recipe.search, self._direction
        assert direction is not None
        positions = evenly_spaced(config.num_images, len(self.tune))
        values: dict[float, float] = {}
        proposed = sorted({0.0, *config.bias, found.bias})
        for round_ in range(config.rounds + 1):
            new = [b for b in proposed if b not in values]
            mious = tried(segmenter, self.tune, positions, [b * direction for b in new])
            values |= dict(zip(new, mious, strict=True))
            best = max(values, key=values.__getitem__)
            proposed = list(beside(best, (0.0, *config.bias), 0.5 ** (round_ + 1)))
        segmenter.add_label_bias((best * direction).tolist())
        return {"label_bias": {"bias": best}}, values[best]

    def score(
        self,
        arm: ArmName,
        seed: int,
        segmenter: Segmenter,
        network_steps: int,
        network_of: ArmName | None = None,
    ) -> Result:
        """Score an arm on every split: one entry of results.json.

        Args:
            arm: to score.
            seed: of it.
            segmenter: that it ends with.
            network_steps: that its network has taken.
            network_of: the arm whose network this is, if not its own.
        """
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
            self._save_counts(counts, self.folder.counts(arm, seed, split))
            result["metrics"][split] = scores(counts)
            if segmenter.crf is None:
                continue
            # Of the same network, whichever arm it is of: what the CRF itself did.
            counted = network_of and self.folder.counts(network_of, seed, split)
            if counted and counted.is_file():
                before = SplitCounts.load(counted)
            else:
                network = segmenter
                if segmenter.config.label_bias:  # it came with the CRF
                    network = segmenter.with_crf(None)
                    network.set_label_bias(())
                before = evaluate(network, dataset, coarse, use_crf=False)
            self._save_counts(before, self.folder.counts(arm, seed, f"{split}-before-crf"))
            result["before_crf"][split] = scores(before)
            result["harm_rate"][split] = harm_rate(before, counts)
        return result

    def _save_counts(self, counts: SplitCounts, path: Path) -> None:
        if distributed.is_first():
            counts.save(path)

    def load(self, arm: ArmName, seed: int) -> Segmenter:
        """Load the model that an arm left, in eval mode."""
        return self.folder.load(arm, seed).to(self.device)

    def save(self, segmenter: Segmenter, arm: ArmName, seed: int) -> None:
        """Write the checkpoint of an arm whose last change was no training."""
        segmenter.to(self.device)
        if distributed.is_first():
            path = self.folder.checkpoint(arm, seed)
            save_checkpoint(
                path, segmenter, data=self.data, arm=arm, seed=seed, step=0, training={}
            )
        distributed.barrier()

    def untrained_segmenter(self) -> Segmenter:
        """Build the network with the weights that the recipe names, without a CRF.

        Nothing is fetched for it where its weights are given as a file.
        """
        model = self.recipe.model
        from_file = model.weights is not None or model.backbone_weights is not None
        config = SegmenterConfig(
            num_classes=len(self.train_split.classes),
            network=without_pretrained(model.network) if from_file else model.network,
            freeze_batch_norm=model.freeze_batch_norm and model.weights is not None,
            min_size=model.min_size,
            network_scale=model.network_scale,
        )
        try:
            segmenter = Segmenter(config)
        except URLError as error:
            raise OSError(
                f"the backbone's ImageNet weights could not be fetched ({error.reason}): give a "
                "file of them with --model.backbone-weights FILE.safetensors, or start at random "
                "with --model.network.backbone.no-pretrained."
            ) from error
        if model.backbone_weights is not None:
            load_backbone_weights(segmenter.network, model.backbone_weights)
        if model.weights is not None:
            load_weights(segmenter.network, model.weights)
        return segmenter

    def _coarse(self, arm: ArmName, seed: int, split: SegmentationDataset) -> Coarse:
        """Return the network's logits of a split, computed once for all CRFs behind it."""
        return self._logits.get(
            (f"{arm}-seed{seed}", *split.names),
            lambda: coarse_unaries(self.load(arm, seed), split),
        )

    def _say(self, result: Result, remark: str) -> None:
        """Print one line for each arm, however often it is built on."""
        key = (result["arm"], result["seed"])
        if key in self._said:
            return
        self._said.add(key)
        texts = [
            f"{split} mIoU {'–' if miou is None else format(miou, '.4f')}"
            for split, metrics in result["metrics"].items()
            for miou in [metrics["miou"]]
        ]
        self.console.print(f"{key[0]}-seed{key[1]}: {', '.join(texts)}, {remark}")

    def _tracker(self, arm: ArmName, seed: int) -> Tracker:
        if not distributed.is_first():
            return NoTracker()
        return RunTracker(
            self.folder.arm(arm, seed),
            self.recipe.wandb,
            group=self.group,
            name=f"{arm}-seed{seed}",
            config={"arm": arm, "seed": seed, **self.config},
            tags=(self.name, arm, self.folder.name),
            run_id=self._run_id(arm, seed),
        )

    def _run_id(self, arm: ArmName, seed: int) -> str | None:
        """Find the W&B run of a checkpoint, where only the checkpoint was kept of it."""
        path = self.folder.checkpoint(arm, seed)
        named = path.with_name("wandb_id.txt").is_file()
        if named or not self.resume or not path.is_file():
            return None
        run_id: str | None = read_checkpoint(path)["training"].get("run_id")
        return run_id


class LogitsCache:
    """Keep the logits of the splits that were used last; several CRFs stand behind one network.

    Args:
        max_bytes: of all that is kept. A split that takes more is computed whenever it is asked
            for.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._logits: dict[Hashable, Coarse] = {}  # the latest last

    def get(self, key: Hashable, compute: Callable[[], Coarse]) -> Coarse:
        """Return the logits of a key, computed where they are not kept."""
        logits = self._logits.pop(key, None) or compute()
        self._logits[key] = logits
        sizes = {k: sum(v.nbytes for v in kept.values()) for k, kept in self._logits.items()}
        for oldest in list(self._logits):
            if sum(sizes.values()) <= self.max_bytes:
                break
            del self._logits[oldest], sizes[oldest]
        return logits


# Every arm for every seed, and what is written about them.


def compare(name: str, recipe: Recipe, out: Path, *, resume: bool) -> dict[str, Any]:
    """Run the comparison; write results.json and report.html; print the table.

    Args:
        name: of the recipe.
        recipe: everything the arms depend on.
        out: the run folder.
        resume: go on with what the folder holds.

    Returns:
        The contents of results.json.

    Raises:
        ValueError: the report split, which table and page show, is not to be scored.
    """
    if "report" not in recipe.score:
        raise ValueError(
            "compare shows the report split, and --score leaves it out: give --score tune report, "
            "or make single arms with `python -m train run`."
        )
    comparison = Comparison(name, recipe, out, resume=resume)
    for arm_name in ARMS:
        check_learning(recipe, arm_name, len(comparison.runner.train_split.classes))
    runs = [comparison.start(seed) for seed in recipe.start_seeds]
    for arm in (comparison.unary, comparison.post_hoc, comparison.crf_only, comparison.joint):
        runs += [arm(seed) for seed in recipe.seeds]
    results = gather(comparison.runner, runs)
    if not distributed.is_first():
        return results
    write_json(out / "results.json", results)
    (found,) = comparisons([read_run(out)])
    comparison.runner.console.print(comparison_table(found))
    comparison.runner.console.print(headline(found), highlight=False)
    comparison.runner.console.print(f"results: {out / 'results.json'}")
    print_report(
        write_report([out], out / "report.html", split=comparison.runner.report),
        comparison.runner.console,
    )
    return results


def gather(runner: ArmRunner, runs: list[Result]) -> dict[str, Any]:
    """Collect the contents of results.json."""
    splits = {
        "train": runner.train_split,
        "tune": runner.tune,
        "report": runner.report,
    }
    return {
        "name": runner.folder.name,
        "recipe": runner.name,
        **runner.folder.provenance(),
        "config": runner.config,
        "data": {
            "classes": list(runner.train_split.classes),
            "scored": list(runner.train_split.scored),
            "splits": {name: len(split) for name, split in splits.items()},
        },
        "seeds": list(runner.recipe.seeds),
        "network_steps": runner.recipe.fit.steps,
        "runs": runs,
    }
