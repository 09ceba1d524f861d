"""The five arms: is joint training better than a post-hoc CRF?

All arms of a seed start from one checkpoint, see the same batches, and take the same
number S of network steps:

    start     the starting checkpoint as it is
    unary     start, the network alone trained for S steps
    post-hoc  unary, and a dense CRF found by search on the tune split
    crf-only  unary, frozen, and a CRF trained by gradient from the post-hoc values
    joint     start, network and CRF trained together for S steps, the CRF started from
              the post-hoc values found on start; with `Recipe.search_again`, found once more
              behind the trained network; with `Recipe.crf_last`, trained once more there

Widths and weights are chosen on the tune split; the report split is only scored.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from urllib.error import URLError

import torch

from eval.arms import ArmName
from models import CrfConfig, CrfForm, Segmenter, load_backbone_weights, load_weights
from train.arm_runner import ArmRunner, Result
from train.arms import TRAINED
from train.phase import Phase, check_learning
from train.recipe import Recipe
from train.run_folder import Found
from train.tracker import Tracker


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
        segmenter = found.with_crf(self._learnable(found.config.crf))
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
        segmenter = self._from_start(crf=self._learnable(found.best))
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
            segmenter = segmenter.with_crf(self._learnable(best) if recipe.crf_last else best)
        if recipe.crf_last is not None:
            last = replace(alone, fit=recipe.crf_last, folder="last", first_step=taken + steps)
            self.runner.fit(segmenter, last, tracker)
        if not ends:
            self.runner.keep(segmenter, "joint", seed)
        result = self.runner.scored("joint", seed, segmenter, steps)
        return {**result, "crf_start": crf_start, "search": rows}

    def _learnable(self, found: CrfConfig) -> CrfConfig:
        """The searched widths and weights in the recipe's form."""
        form = {field.name: getattr(self.recipe.crf, field.name) for field in fields(CrfForm)}
        return replace(found, **form)

    def _from_start(self, crf: CrfConfig | None) -> Segmenter:
        """The starting network, its BN frozen if the recipe says so, with a CRF or none."""
        started = self.runner.load("start", self.recipe.seeds[0])
        # What the training of start has frozen stays so.
        frozen = self.recipe.model.freeze_batch_norm or started.config.freeze_batch_norm
        return started.with_crf(crf, freeze_batch_norm=frozen)
