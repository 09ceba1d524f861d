"""The typical faults that the tests should catch, each as a change of one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutant:
    """Describe one fault.

    Attributes:
        name: what it does, in plain English.
        file: where it is, a path from the root.
        old: the right source, which the file holds exactly once.
        new: the faulty one.
        tests: files or folders that are likely to catch it, separated by spaces; those that do not
            exist are skipped.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


def mutated(text: str, mutant: Mutant) -> str:
    """Return the text of a file with the fault.

    Raises:
        ValueError: the file does not hold the right source exactly once.
    """
    count = text.count(mutant.old)
    if count != 1:
        raise ValueError(
            f"{mutant.name!r}: {mutant.file} must hold {mutant.old!r} exactly once, got {count}. "
            "Follow the change of the source in tests/mutants/list.py."
        )
    return text.replace(mutant.old, mutant.new)


# fmt: off
CRFRNN = (
    Mutant("Add the messages instead of subtracting the penalty", "crfrnn/inference.py",
           "logits = logits - kernel(", "logits = logits + kernel(",
           "tests/crfrnn/test_inference.py"),
    Mutant("Swap the two logits that damping mixes", "crfrnn/inference.py",
           "torch.lerp(update, logits, damping)", "torch.lerp(logits, update, damping)",
           "tests/crfrnn/test_inference.py"),
    Mutant("Use the first iteration's penalties in every iteration", "crfrnn/inference.py",
           "yield pairwise[min(t, len(pairwise) - 1)]", "yield pairwise[0]",
           "tests/crfrnn/test_inference.py"),
    Mutant("Swap the normalisations before and after", "crfrnn/filters.py",
           'if normalization != "after":\n            self.before = factor\n'
           '        if normalization != "before":',
           'if normalization != "before":\n            self.before = factor\n'
           '        if normalization != "after":', "tests/crfrnn/test_traps.py"),
    Mutant("Transpose the kernel but not the order of its factors", "crfrnn/filters.py",
           "return scaled(self.kernel.transpose(scaled(v, self.after)), self.before)",
           "return scaled(self.kernel.transpose(scaled(v, self.before)), self.after)",
           "tests/crfrnn/test_traps.py"),
    Mutant("Keep the self term where it must go", "crfrnn/filters.py",
           "return self.kernel(v) - v", "return self.kernel(v)", "tests/crfrnn/test_traps.py"),
    Mutant("Keep the order of the blurs in the lattice's gradient",
           "crfrnn/ops.py",
           "accuracy, not transposed, path)", "accuracy, transposed, path)",
           "tests/crfrnn/test_gradients.py"),
    Mutant("Keep the factors' order in the backward of a composed update",
           "crfrnn/ops.py",
           "received = kernel.filter(scaled(grad, kernel.after), transposed=True)\n"
           "            received = scaled(received, kernel.before)",
           "received = kernel.filter(scaled(grad, kernel.before), transposed=True)\n"
           "            received = scaled(received, kernel.after)", "tests/crfrnn/test_cpu.py"),
    Mutant("Leave the image out of the key of a lattice vertex", "crfrnn/lattice.py",
           "base = image_index * math.prod(spans)", "base = image_index * 0",
           "tests/crfrnn/test_properties.py"),
    Mutant("End the separable Gaussian one pixel before the grid does",
           "crfrnn/plain.py",
           "radius = size - 1\n", "radius = max(size - 2, 0)\n", "tests/crfrnn/test_filtering.py"),
    Mutant("Leave the last row of the window out", "crfrnn/plain.py",
           "radius * dilation + 1, dilation)", "radius * dilation, dilation)",
           "tests/crfrnn/test_filtering.py"),
    Mutant("Subtract what a pixel sent from the gradient of its features",
           "crfrnn/plain.py",
           "(received + sent).sum(2)", "(received - sent).sum(2)",
           "tests/crfrnn/test_gradients.py"),
    Mutant("Give the widths of the axes in the grid's order to (x, y)", "crfrnn/kernels.py",
           'self.widths("position", len(shape), valid).flip(0)',
           'self.widths("position", len(shape), valid)',
           "tests/crfrnn/test_properties.py tests/crfrnn/test_reference.py"),
    Mutant("Ignore the mask of padding in the kernels", "crfrnn/kernels.py",
           "masked = mask is not None", "masked = False", "tests/crfrnn/test_properties.py"),
    Mutant("Run the training's number of iterations in evaluation", "crfrnn/crf.py",
           "self.num_iterations if self.training else self.num_iterations_eval",
           "self.num_iterations", "tests/crfrnn/test_crf.py"),
    Mutant("Compute the CRF in the half precision of its logits", "crfrnn/crf.py",
           "precise = torch.promote_types(unary.dtype, torch.float32)", "precise = unary.dtype",
           "tests/crfrnn/test_crf.py"),
    Mutant("Stop the gradient below a lower bound for good", "crfrnn/label_matrices.py",
           "(x > ctx.bound) | (grad < 0)", "x > ctx.bound", "tests/crfrnn/test_compatibility.py"),
    Mutant("Take shorter steps of Frank-Wolfe", "crfrnn/frank_wolfe.py",
           "return 2 / (t + 2)", "return 2 / (t + 3)", "tests/crfrnn/test_inference.py"),
    Mutant("Take the softmax of a weak loss over pixels", "crfrnn/losses.py",
           'rows_softmax(logits.to(precise).flatten(2).transpose(1, 2), "automatic")',
           "logits.to(precise).flatten(2).softmax(2).transpose(1, 2)",
           "tests/crfrnn/test_losses.py"),
    Mutant("Swap x and y in the features of DenseCRF2D", "crfrnn/densecrf.py",
           "np.stack([x, y])", "np.stack([y, x])", "tests/crfrnn/test_densecrf.py"),
    Mutant("Import the compatibility transposed", "crfrnn/importers.py",
           "copy_(-matrices[COMPATIBILITY])", "copy_(-matrices[COMPATIBILITY].t())",
           "tests/crfrnn/test_reference.py"),
    Mutant("C++: scale with the same factors in both directions", "crfrnn/csrc/mean_field.cpp",
           "factor = transposed ? kernel.after : kernel.before;", "factor = kernel.before;",
           "tests/crfrnn/test_cpu.py"),
    Mutant("C++: keep the order of the blurs in the transpose", "crfrnn/csrc/filters.cpp",
           "direction = transposed ? lattice.size - 1 - step : step;", "direction = step;",
           "tests/crfrnn/test_cpu.py"),
    Mutant("C++: leave the last block of labels out of the softmax's maximum",
           "crfrnn/csrc/rows.h",
           "Lanes<8> most = own ? row.block[G - 1] : nothing;", "Lanes<8> most = nothing;",
           "tests/crfrnn/test_ops.py tests/crfrnn/test_cpu.py"),
    Mutant("C++: leave the last pixels of a segment out of the penalty's gradient",
           "crfrnn/csrc/mean_field_rows.h",
           "for (; pixel < count; ++pixel)\n                    subtract_outer",
           "for (; pixel < count - 1; ++pixel)\n                    subtract_outer",
           "tests/crfrnn/test_cpu.py"),
    Mutant("C++: forget the later iterations in the unary's gradient",
           "crfrnn/csrc/mean_field_rows.h",
           "grad_sum[at] + rows[k * stride + l];", "rows[k * stride + l];",
           "tests/crfrnn/test_cpu.py"),
)

MODELS = (
    Mutant("Keep theta_alpha in pixels of the image on a coarser grid", "models/crf.py",
           'arguments["theta_alpha"] /= config.resolution', 'arguments["theta_alpha"] /= 1',
           "tests/models/test_segmenter.py"),
    Mutant("Keep the atrous rates at output stride 8", "models/deeplab_v3.py",
           "rate * 16 // config.output_stride for", "rate for", "tests/models/test_networks.py"),
    Mutant("Leave a ResNet at output stride 16 without dilation", "models/resnet.py",
           "16: (1, 1, 1, 2)", "16: (1, 1, 1, 1)", "tests/models/test_backbones.py"),
    Mutant("Let frozen batch normalisation see the batches", "models/segmenter.py",
           "keep_frozen(self)", "pass", "tests/models/test_segmenter.py"),
    Mutant("Decode without the low-level features", "models/deeplab_v3.py",
           "self.reduce(low)]", "0 * self.reduce(low)]", "tests/models/test_networks.py"),
    Mutant("Enlarge the logits with pixel areas on each other", "models/segmenter.py",
           'mode="bilinear", align_corners=True)', 'mode="bilinear", align_corners=False)',
           "tests/models/test_segmenter.py"),
)

DATA = (
    Mutant("Mirror the image and not the mask", "data/transforms.py",
           "F.horizontal_flip(image), F.horizontal_flip(mask)", "F.horizontal_flip(image), mask",
           "tests/data/test_transforms.py"),
    Mutant("Never crop at the last row and column", "data/transforms.py",
           "max(0, n - size) + 1, ()", "max(1, n - size), ()", "tests/data/test_transforms.py"),
    Mutant("Resize masks by the corners of their pixels", "data/transforms.py",
           "InterpolationMode.NEAREST_EXACT", "InterpolationMode.NEAREST",
           "tests/data/test_transforms.py"),
    Mutant("Label the padding as the background", "data/transforms.py",
           "F.pad(mask, padding, fill=VOID)", "F.pad(mask, padding, fill=0)",
           "tests/data/test_transforms.py"),
    Mutant("Read void as the first class", "data/paired.py",
           "table[list(void)] = VOID", "table[list(void)] = 0", "tests/data/test_reading.py"),
    Mutant("Read a photograph as the camera was held", "data/reading.py",
           "if orientation(picture) > 1", "if orientation(picture) > 8",
           "tests/data/test_odd_files.py"),
    Mutant("Label every click as the ground", "data/collage.py",
           "columns[near]] = layer.label", "columns[near]] = layers[0].label",
           "tests/data/test_prepare.py"),
    Mutant("Train on the images of VOC's val that SBD labels", "data/prepare.py",
           '({*official["train"]} | extra) - {*official["val"]}',
           '{*official["train"]} | extra', "tests/data/test_prepare.py"),
    Mutant("Read the palette's colours as blue, green, red", "data/dataset.py",
           "palette[:, channel]", "palette[:, 2 - channel]", "tests/data/test_data_sets.py"),
    Mutant("Augment an image in the same way in every epoch", "data/stream.py",
           "self._random(_AUGMENT, place)", "self._random(_AUGMENT, index)",
           "tests/data/test_stream.py"),
    Mutant("Let neighbouring processes see each other's batches", "data/stream.py",
           "(step * self.num_processes + self.rank)", "(step + self.rank)",
           "tests/data/test_stream.py"),
    Mutant("Shift the classes of PASCAL-Context", "data/voc2010.py",
           "{label + first: label for", "{label + 1: label for", "tests/data/test_data_sets.py"),
)

TRAIN = (
    Mutant("Resume from the checkpoint of other hyper-parameters", "train/state.py",
           '"fit": training["config"],', '"fit": asdict(self.stage.fit),',
           "tests/train/test_loop.py"),
    Mutant("Resume with a fresh optimiser", "train/state.py",
           'self.optimizer.load_state_dict(training["optimizer"])', "self.optimizer.zero_grad()",
           "tests/train/test_loop.py"),
    Mutant("Resume with a fresh learning rate schedule", "train/state.py",
           'self.schedule.load_state_dict(training["schedule"])', "pass",
           "tests/train/test_loop.py"),
    Mutant("Resume with other random numbers", "train/state.py",
           'set_random_state(training["random"][distributed.rank()])', "set_random_state",
           "tests/train/test_loop.py"),
    Mutant("Keep the last weights instead of their moving average", "train/state.py",
           "# type: ignore[assignment]\n        return averaged",
           "# type: ignore[assignment]\n        return self.segmenter", "tests/train/test_loop.py"),
    Mutant("Leave the frozen network in train mode", "train/stage.py",
           "segmenter.network.eval()", "pass", "tests/train/test_loop.py"),
    Mutant("Decay the biases", "train/optim.py",
           "lr * config.bias_multiplier, 0.0)", "lr * config.bias_multiplier, config.weight_decay)",
           "tests/train/test_optim.py"),
    Mutant("Take void as wrong pixels in Lovász-softmax", "train/losses.py",
           "labelled = (ids != VOID)", "labelled = (ids == ids)", "tests/train/test_losses.py"),
    Mutant("Add the gradients of a step up instead of their mean", "train/loop.py",
           '(terms["loss"] / len(batches)).backward()', 'terms["loss"].backward()',
           "tests/train/test_loop.py"),
    Mutant("Share the start between different augmentations", "train/recipe.py",
           "augment: TransformConfig\n", "augment: TransformConfig = field(metadata=CRF)\n",
           "tests/train/test_ablate.py"),
    Mutant("Share a search between different normalisations", "models/crf.py",
           'option("after")', 'option("after", post_hoc="after")', "tests/train/test_ablate.py"),
    Mutant("Search the post-hoc CRF on the report split", "train/arms.py",
           "self.tune,\n                self._coarse(arm, seed, self.tune),",
           "self.report,\n                self._coarse(arm, seed, self.report),",
           "tests/train/test_arms.py"),
    Mutant("Start joint from the CRF that was found behind unary", "train/arms.py",
           'runner.search("start", recipe.start_seed(seed))', 'runner.search("unary", seed)',
           "tests/train/test_compare.py"),
    Mutant("Take the best bias twice", "train/bias.py",
           "set_label_bias((best * direction)", "set_label_bias((2 * best * direction)",
           "tests/train/test_bias.py"),
)

EVAL = (
    Mutant("Count a confusion matrix with the prediction in its rows", "eval/metrics/scorer.py",
           "(ring * size + truth) * size + predicted", "(ring * size + predicted) * size + truth",
           "tests/eval/test_metrics.py"),
    Mutant("Count a trimap band one pixel too narrow", "eval/metrics/scorer.py",
           "np.searchsorted(np.asarray(self.trimap_widths), distance)",
           'np.searchsorted(np.asarray(self.trimap_widths), distance, side="right")',
           "tests/eval/test_metrics.py"),
    Mutant("Count void in likelihood and calibration", "eval/metrics/scores.py",
           "values.cpu()[labelled].double()", "values.cpu().flatten().double()",
           "tests/eval/test_counts.py"),
    Mutant("Count an absent class as one with an IoU of 0", "eval/metrics/confusion.py",
           "0.0).sum(-1), present.sum(-1))", "0.0).sum(-1), values.shape[-1])",
           "tests/eval/test_metrics.py"),
    Mutant("Compare two arms on different resamples", "eval/metrics/bootstrap.py",
           "- self.values(others, score))",
           "- Bootstrap(len(others[0]), num_resamples=len(self._weights) - 1, seed=1)"
           ".values(others, score))", "tests/eval/test_bootstrap.py"),
    Mutant("Draw twice as many images as there are in a resample", "eval/metrics/bootstrap.py",
           "generator.multinomial(num_images, ", "generator.multinomial(2 * num_images, ",
           "tests/eval/test_bootstrap.py"),
    Mutant("Count the images that the CRF helps as harmed", "eval/metrics/scores.py",
           "(counted < 0)", "(counted > 0)", "tests/eval/test_counts.py"),
    Mutant("Make the regions of Boundary IoU one pixel too narrow", "eval/metrics/boundary.py",
           '"edge") <= width)', '"edge") < width)', "tests/eval/test_boundary.py"),
    Mutant("Fuse a mirrored view without mirroring it back", "eval/inference.py",
           "logits = logits.flip(3) if mirror else logits", "logits = logits.clone()",
           "tests/eval/test_whole_image.py"),
    Mutant("Divide the widths by the scale of a larger image", "eval/inference.py",
           "add_(math.log(scale))", "sub_(math.log(scale))", "tests/eval/test_whole_image.py"),
    Mutant("Return the last setting of a search instead of the best", "eval/grid.py",
           "return max(values, key=values.__getitem__)", "return next(reversed(values))",
           "tests/eval/test_tune.py"),
    Mutant("Leave a page that does not follow from what is stored", "eval/results/command.py",
           "if written != expected:", "if not written and expected:", "tests/eval/test_results.py"),
)
# fmt: on

MUTANTS = (*CRFRNN, *MODELS, *DATA, *TRAIN, *EVAL)
