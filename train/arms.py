"""The experiment: five arms that see the same data, seeds and network steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from rich.console import Console
from torch import Tensor

import data
from data import Augment, SegmentationDataset, TrainStream
from eval.inference import Coarse, coarse_unaries, evaluate
from eval.metrics import SplitCounts, harm_rate, scores
from eval.report import print_report, write_report
from eval.table import comparison_table
from eval.tuning.search import search
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
from runtime.run_folder import ARMS, ArmName, Found, RunFolder, as_json, read_json, write_json
from train.loop import fit, progress_bar
from train.losses import check_class_weights, weighed
from train.optim import build_optimizer
from train.recipe import FitConfig, Recipe
from train.stage import TRAINED, Arm, Run, check_names, only_learning
from train.tracking import NoTracker, RunTracker, Tracker

# Logits of whole splits, as many as memory is meant to hold.


class LogitsCache:
    """Keeps what was asked for last; several CRFs stand behind one network.

    Args:
        max_bytes: of all that is kept. A split that takes more is computed whenever it is asked
            for.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._kept: dict[Hashable, Coarse] = {}  # the latest last

    def of(self, key: Hashable, compute: Callable[[], Coarse]) -> Coarse:
        """The logits of that key, computed where they are not kept."""
        found = self._kept.pop(key, None)
        logits = compute() if found is None else found
        self._kept[key] = logits
        sizes = {k: num_bytes(kept) for k, kept in self._kept.items()}
        for oldest in list(self._kept):
            if sum(sizes.values()) <= self.max_bytes:
                break
            del self._kept[oldest], sizes[oldest]
        return logits


def num_bytes(logits: Coarse) -> int:
    """What the logits take in memory."""
    return sum(value.nbytes for value in logits.values())


# One training of an arm, and whether all of a recipe's fit its data and network.


@dataclass(frozen=True)
class Phase:
    """One training of an arm; most arms have one.

    Attributes:
        name: of the arm.
        seed: of its batches.
        fit: the numbers.
        learns: what learns.
        folder: where the checkpoint lies within the arm's folder, if not directly in it.
        first_step: steps that the arm's earlier phases have taken.
    """

    name: ArmName
    seed: int
    fit: FitConfig
    learns: Arm
    folder: str = ""
    first_step: int = 0


def check_phases(recipe: Recipe, num_classes: int) -> None:
    """Raise ValueError, before anything is trained, where a phase does not fit data or network."""
    trained = recipe.model.weights is None
    finish = recipe.finish if trained else None
    if finish is not None and finish.output_stride is not None:
        at_output_stride(recipe.model.network, finish.output_stride)
    with torch.device("meta"):
        network = build_network(without_pretrained(recipe.model.network), num_classes)
    start = (recipe.start, None if finish is None else finish.fit)
    for phase in (*start, recipe.fit, recipe.crf_first, recipe.crf_last, recipe.crf_fit):
        if phase is not None:
            check_names(network, phase.frozen)
            check_class_weights(phase.loss.class_weights, num_classes)


def check_learning(recipe: Recipe, arm: ArmName, num_classes: int) -> None:
    """Raise ValueError, before anything is trained, where a phase of the arm has nothing to learn.

    Phases of other arms that it builds on included.
    """
    crf = CrfConfig(**asdict(recipe.crf))
    with torch.device("meta"):
        network = without_pretrained(recipe.model.network)
        segmenter = Segmenter(SegmenterConfig(num_classes, network, crf))
    behind = replace(TRAINED["joint"], network=False)
    alone = [("fit", recipe.fit, TRAINED["unary"])]
    phases: dict[ArmName, list[tuple[str, FitConfig | None, Arm]]] = {
        "start": [],
        "unary": [*alone],
        "post-hoc": [*alone],
        "crf-only": [*alone, ("crf_fit", recipe.crf_fit, TRAINED["crf-only"])],
        "joint": [
            ("crf_first", recipe.crf_first, behind),
            ("fit", recipe.fit, TRAINED["joint"]),
            ("crf_last", recipe.crf_last, behind),
        ],
    }
    for name, config, learns in phases[arm]:
        if config is not None:
            with only_learning(segmenter, learns, config.frozen):
                try:
                    build_optimizer(segmenter, learns, config)
                except ValueError as error:
                    raise ValueError(f"--{name.replace('_', '-')}: {error}") from error


# What every arm is made with: training, search, scores, and the folder that keeps them.

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
        self.config = {"recipe": name, **as_json(asdict(recipe))}
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
        self.console = Console(quiet=not distributed.is_first())
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
        kept: Result | None = distributed.from_first(read_json(path))
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
        if distributed.is_first():
            write_json(path, result)
        self.folder.sign()
        distributed.barrier()
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
            rank=distributed.rank(),
            num_processes=distributed.num_processes(),
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
        kept = distributed.from_first(read_json(path))
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
        if distributed.is_first():
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
        if distributed.is_first():
            counts.save(path)

    def load(self, arm: ArmName, seed: int) -> Segmenter:
        """The model that an arm left, in eval mode."""
        return self.folder.load(arm, seed).to(self.device)

    def keep(self, segmenter: Segmenter, arm: ArmName, seed: int) -> None:
        """Write a checkpoint of an arm that was not trained here."""
        segmenter.to(self.device)
        if distributed.is_first():
            path = self.folder.checkpoint(arm, seed)
            save_checkpoint(
                path, segmenter, data=self.data, arm=arm, seed=seed, step=0, training={}
            )
        distributed.barrier()

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
        """The W&B run that a checkpoint belongs to, where only the checkpoint was kept of it."""
        path = self.folder.checkpoint(arm, seed)
        named = path.with_name("wandb_id.txt").is_file()
        if named or not self.resume or not path.is_file():
            return None
        found: str | None = read_checkpoint(path)["training"].get("run_id")
        return found


# The five arms: is joint training better than a post-hoc CRF?
#
# All arms of a seed start from one checkpoint, see the same batches, and take the same number S
# of network steps:
#
#     start     the starting checkpoint as it is
#     unary     start, the network alone trained for S steps
#     post-hoc  unary, and a dense CRF found by search on the tune split
#     crf-only  unary, frozen, and a CRF trained by gradient from the post-hoc values
#     joint     start, network and CRF trained together for S steps, the CRF started from
#               the post-hoc values found on start; with `Recipe.search_again`, found once more
#               behind the trained network; with `Recipe.crf_last`, trained once more there
#
# Widths and weights are chosen on the tune split; the report split is only scored.


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
        self.recipe = recipe
        self.runner = ArmRunner(name, recipe, out, resume=resume)

    def run(self, arm: ArmName, seed: int) -> Result:
        """The result of one arm, and of those that it builds on."""
        check_learning(self.recipe, arm, len(self.runner.train.classes))
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
        return self.runner.once("start", seed, lambda tracker: self._start(seed, tracker))

    def _start(self, seed: int, tracker: Tracker) -> Result:
        torch.manual_seed(seed)
        model, finish = self.recipe.model, self.recipe.finish
        try:
            segmenter = Segmenter(self.runner.network_config(frozen=model.weights is not None))
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
            self.runner.keep(segmenter, "start", seed)
            return self.runner.scored("start", seed, segmenter, 0)
        assert self.recipe.start is not None  # check_start
        phase = Phase("start", seed, self.recipe.start, TRAINED["start"])
        if finish is None:
            steps = self.runner.fit(segmenter, phase, tracker)
            return self.runner.scored("start", seed, segmenter, steps)
        steps = self.runner.fit(segmenter, replace(phase, folder="first"), tracker)
        segmenter = segmenter.finished(finish.output_stride, freeze=finish.freeze_batch_norm)
        last = replace(phase, fit=finish.fit, first_step=steps)
        steps += self.runner.fit(segmenter, last, tracker)
        return self.runner.scored("start", seed, segmenter, steps)

    def unary(self, seed: int) -> Result:
        """The network alone, trained for S steps."""
        self.start()
        return self.runner.once("unary", seed, lambda tracker: self._unary(seed, tracker))

    def _unary(self, seed: int, tracker: Tracker) -> Result:
        segmenter = self._from_start(crf=None)
        phase = Phase("unary", seed, self.recipe.fit, TRAINED["unary"])
        steps = self.runner.fit(segmenter, phase, tracker)
        return self.runner.scored("unary", seed, segmenter, steps)

    def post_hoc(self, seed: int) -> Result:
        """Unary and the best CRF of the search."""
        steps = self.unary(seed)["network_steps"]
        found = self.runner.search("unary", seed)
        return self.runner.once(
            "post-hoc", seed, lambda _: self._post_hoc(seed, found, steps), found
        )

    def _post_hoc(self, seed: int, found: Found, steps: int) -> Result:
        segmenter = self.runner.load("unary", seed).with_crf(found.best)
        self.runner.keep(segmenter, "post-hoc", seed)
        return self.runner.scored("post-hoc", seed, segmenter, steps, "unary")

    def crf_only(self, seed: int) -> Result:
        """Unary frozen; the CRF learns, from the post-hoc values."""
        steps = self.post_hoc(seed)["network_steps"]
        return self.runner.once(
            "crf-only", seed, lambda tracker: self._crf_only(seed, steps, tracker)
        )

    def _crf_only(self, seed: int, steps: int, tracker: Tracker) -> Result:
        found = self.runner.load("post-hoc", seed)
        assert found.config.crf is not None
        segmenter = found.with_crf(in_form(found.config.crf, self.recipe.crf))
        crf_start = segmenter.describe_crf()
        phase = Phase("crf-only", seed, self.recipe.crf_fit, TRAINED["crf-only"])
        self.runner.fit(segmenter, phase, tracker)
        result = self.runner.scored("crf-only", seed, segmenter, steps, "unary")
        return {**result, "crf_start": crf_start}

    def joint(self, seed: int) -> Result:
        """Network and CRF together for S steps, the CRF from the values found on start."""
        self.start()
        found = self.runner.search("start", self.recipe.seeds[0])
        return self.runner.once(
            "joint", seed, lambda tracker: self._joint(seed, found, tracker), found
        )

    def _joint(self, seed: int, found: Found, tracker: Tracker) -> Result:
        segmenter = self._from_start(crf=in_form(found.best, self.recipe.crf))
        crf_start = segmenter.describe_crf()
        recipe = self.recipe
        phase = Phase("joint", seed, recipe.fit, TRAINED["joint"])
        alone = replace(phase, learns=replace(phase.learns, network=False))
        taken = 0
        if recipe.crf_first is not None:
            first = replace(alone, fit=recipe.crf_first, folder="first")
            taken = self.runner.fit(segmenter, first, tracker)
        ends = recipe.crf_last is None and not recipe.search_again
        phase = replace(phase, folder="" if ends else "trained", first_step=taken)
        steps = self.runner.fit(segmenter, phase, tracker)
        rows = None
        if recipe.search_again:
            self.runner.keep(segmenter, "joint", seed)
            again = self.runner.search("joint", seed)
            best, rows = again.best, again.rows
            segmenter = segmenter.with_crf(in_form(best, recipe.crf) if recipe.crf_last else best)
        if recipe.crf_last is not None:
            last = replace(alone, fit=recipe.crf_last, folder="last", first_step=taken + steps)
            self.runner.fit(segmenter, last, tracker)
        if not ends:
            self.runner.keep(segmenter, "joint", seed)
        result = self.runner.scored("joint", seed, segmenter, steps)
        return {**result, "crf_start": crf_start, "search": rows}

    def _from_start(self, crf: CrfConfig | None) -> Segmenter:
        """The starting network, its BN frozen if the recipe says so, with a CRF or none."""
        started = self.runner.load("start", self.recipe.seeds[0])
        # What the training of start has frozen stays so.
        frozen = self.recipe.model.freeze_batch_norm or started.config.freeze_batch_norm
        return started.with_crf(crf, freeze_batch_norm=frozen)


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
        check_learning(recipe, arm_name, len(comparison.runner.train.classes))
    runs = [comparison.start()]
    for arm in (comparison.unary, comparison.post_hoc, comparison.crf_only, comparison.joint):
        runs += [arm(seed) for seed in recipe.seeds]
    results = gather(comparison.runner, runs)
    if not distributed.is_first():
        return results
    write_json(out / "results.json", results)
    comparison.runner.console.print(comparison_table(results))
    comparison.runner.console.print(f"results: {out / 'results.json'}")
    print_report(
        write_report([out], out / "report.html", split=comparison.runner.report),
        comparison.runner.console,
    )
    return results


def gather(runner: ArmRunner, runs: list[Result]) -> dict[str, Any]:
    """The contents of results.json."""
    splits = {
        "train": runner.train,
        "tune": runner.tune,
        "report": runner.report,
    }
    return {
        "name": runner.folder.name,
        "recipe": runner.name,
        **runner.folder.provenance(),
        "config": runner.config,
        "data": {
            "classes": list(runner.train.classes),
            "scored": list(runner.train.scored),
            "splits": {name: len(split) for name, split in splits.items()},
        },
        "seeds": list(runner.recipe.seeds),
        "network_steps": runner.recipe.fit.steps,
        "runs": runs,
    }
