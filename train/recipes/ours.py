"""The comparisons of this project: the embedded data set, CamVid, the animals of VOC 2012."""

from __future__ import annotations

from dataclasses import replace

from data import CamVidConfig, CollageConfig, TransformConfig, VocClicksConfig, VocConfig
from data.voc import ANIMALS
from eval.grid import SearchConfig
from models import CrfForm, DeepLabV3Config, TimmConfig, published_network
from train.losses import LossConfig
from train.recipe import FitConfig, ModelConfig, Recipe

# The embedded data set.


def collage() -> Recipe:
    """Train on the embedded data set, from random initialisation: nothing to download.

    Command: python -m train compare collage   (or: make demo)
    Cost: under 10 minutes on 2 CPU cores.
    Expect: the table in README.md. From one seed to the next mIoU moves by several points.
    """
    # From a start that has been trained long enough the CRF's loss may weigh as much as the
    # unary's; the cut keeps the few images whose gradient it multiplies from deciding a step.
    fit = FitConfig(steps=90, lr=1e-4, warmup=8, loss=LossConfig(unary=1.0), clip_norm=1.0)
    return Recipe(
        data=CollageConfig(num_tune=60, num_report=160),
        model=ModelConfig(
            # From random initialisation in few steps the paper's BN momentum would leave the
            # statistics at their start.
            network=DeepLabV3Config(
                backbone=TimmConfig("resnet10t", normalization="half"),
                atrous_rates=(2,),
                head_channels=96,
                dropout=0.0,
                batch_norm_momentum=0.1,
            ),
            freeze_batch_norm=False,
        ),
        augment=TransformConfig(crop_size=None, scale=None, flip=True),
        start=FitConfig(steps=450, lr=1e-3),
        fit=fit,
        crf_fit=replace(fit, steps=30),
        crf=CrfForm(kernel_weights="class", normalization="symmetric", learn_output_scale=True),
        search=SearchConfig(
            num_images=20,
            theta_gamma=(1.0,),
            spatial_weight=(3.0,),
            theta_alpha=(10.0, 25.0),
            theta_beta=(8.0, 20.0),
            bilateral_weight=(3.0, 6.0),
        ),
    )


# CamVid: street scenes with thin structures.


def camvid() -> Recipe:
    """Train on CamVid, 11 classes at 480 x 360, DeepLabv3 on MobileNetV2 with a random head.

    Command: python -m train compare camvid --data.root CamVid
             --model.backbone-weights mobilenetv2_100_imagenet.safetensors
    Cost: on one CPU core the start 9 minutes, its search 4; of a seed, scored on report alone,
        unary 3, post-hoc 6, crf-only 6 and joint 14.
    Expect: on report, from three seeds, start 39.5 mIoU and 24.4 within 3 px of borders, unary
        40.4 and 25.2, post-hoc 40.3 and 26.3, crf-only 42.3 and 27.7, joint 42.4 and 27.8. So
        short a start knows no poles, signs, pedestrians or bicyclists: give --start.steps 2000
        where there is a GPU. val is of a sequence that train has frames of; in test, the 171 frames
        whose names begin with Seq05VD are of one that it has none of.
    """
    base = voc12_animals_imagenet()
    return replace(
        base,
        data=CamVidConfig(),
        # Full resolution: poles are a few pixels wide.
        crf=replace(base.crf, resolution=1),
        search=SearchConfig(
            num_images=40,
            theta_gamma=(1.0,),
            spatial_weight=(1.0,),
            theta_alpha=(10.0, 30.0),
            theta_beta=(3.0, 8.0),
            bilateral_weight=(1.0, 3.0),
        ),
    )


# The animals of VOC 2012.


def voc12_animals() -> Recipe:
    """Train on the animals of VOC 2012, from the published DeepLabv3 on MobileNetV2.

    Command: python -m train compare voc12-animals --data.root VOCdevkit/VOC2012
             --model.weights deeplabv3_mobilenetv2_voc.safetensors
             and, with the lists of `python -m data prepare voc-animals`, --data.train-list
             animals_train --data.tune-list animals_tune --data.report-list animals_report
    Cost: on one CPU core, of a seed scored on report alone, unary 6 minutes, post-hoc 9, crf-only 7
        and joint 14; once the search on start, 5.
    Expect: on report, from three seeds, start 83.5 mIoU-7 and 62.6 within 3 px of borders, unary
        84.0 and 63.4, post-hoc 85.2 and 69.5, crf-only 85.3 and 70.2, joint 85.4 and 70.2.
    """
    # The CRF of voc12-animals-imagenet, chosen there on the tune split: what the search has found
    # stays, and a context kernel learns behind the frozen network.
    weak = voc12_animals_imagenet()
    # Whole images: a crop would change what image pooling sees. One by one, because they differ
    # in size; BN is frozen.
    fit = replace(weak.fit, steps=50, batch_size=1, accumulate=4, lr=1e-5, head_multiplier=1.0)
    crf_fit = replace(weak.crf_fit, lr=fit.lr, head_multiplier=fit.head_multiplier)
    return Recipe(
        data=VocConfig(scored=ANIMALS),
        model=ModelConfig(min_size=513),
        augment=TransformConfig(),
        start=None,
        fit=fit,
        crf_last=crf_fit,
        crf_fit=crf_fit,
        crf=weak.crf,
        search=SearchConfig(
            num_images=50,
            theta_gamma=(1.0,),
            spatial_weight=(3.0,),
            theta_alpha=(40.0, 80.0),
            theta_beta=(3.0, 5.0),
            bilateral_weight=(4.0, 6.0),
        ),
    )


# The animals of VOC 2012, from an ImageNet backbone, with a loss that weighs background less.

# About exp(-b), b the bias of background that `python -m train bias` finds best on the tune split
# where all pixels weigh alike: 1.5 nats for most arms. Mean IoU weighs all labels alike, and two
# thirds of the pixels are background.
BACKGROUND = 0.25


def voc12_animals_balanced() -> Recipe:
    """Repeat `voc12-animals-imagenet` with background at a weight of 1/4 in every loss.

    Training then asks for what mean IoU counts, in all arms alike. It was meant to leave nothing
    that one more threshold would gain for any CRF; RESULTS.md tells how far it does, and that a
    bias that is searched after training without the weight scores higher.

    Command: python -m train compare voc12-animals-balanced --data.root VOCdevkit/VOC2012
             --model.backbone-weights mobilenetv2_100_imagenet.safetensors
             and, with the lists of `python -m data prepare voc-animals`, --data.train-list
             animals_train --data.tune-list animals_tune --data.report-list animals_report
    Cost: that of `voc12-animals-imagenet`.
    Expect: on report, from three seeds, start 53.5 mIoU-7 and 35.5 within 3 px of borders, unary
        53.7 and 35.1, post-hoc 57.4 and 44.0, crf-only 58.0 and 46.0, joint 57.5 and 46.3.
    """
    base = voc12_animals_imagenet()
    assert base.start is not None
    assert base.crf_last is not None
    return replace(
        base,
        start=balanced(base.start),
        fit=balanced(base.fit),
        crf_fit=balanced(base.crf_fit),
        crf_last=balanced(base.crf_last),
    )


def balanced(fit: FitConfig) -> FitConfig:
    """Weigh background in the loss of a training; the other labels at 1."""
    weights = (BACKGROUND, *[1.0] * 20)
    return replace(fit, loss=replace(fit.loss, class_weights=weights))


# The animals of VOC 2012, from an ImageNet backbone: a weaker start than `voc12-animals`.

CROP = 257  # 16 k + 1: no padding at stride 16


def voc12_animals_imagenet() -> Recipe:
    """Train on the animals of VOC 2012, DeepLabv3 on MobileNetV2 with a head that starts at random.

    Command: python -m train compare voc12-animals-imagenet --data.root VOCdevkit/VOC2012
             --model.backbone-weights mobilenetv2_100_imagenet.safetensors
             and, with the lists of `python -m data prepare voc-animals`, --data.train-list
             animals_train --data.tune-list animals_tune --data.report-list animals_report
    Cost: on one CPU core the start 12 minutes, its search 9; of a seed, scored on report alone,
        unary 4, post-hoc 11, crf-only 6 and joint 14.
    Expect: on report, from three seeds, start 55.8 mIoU-7 and 32.8 within 3 px of borders, unary
        55.3 and 32.4, post-hoc 57.6 and 38.9, crf-only 61.0 and 44.1, joint 61.5 and 45.0. From
        seed to seed all arms move by two to three points together.
    """
    # What the search has found stays. The network learns through it, on crops; then, of the CRF,
    # the context kernel's matrix alone, behind the frozen network and on whole images, which differ
    # in size.
    fit = FitConfig(
        steps=60,
        # On the tune split two trainings of unary at 1e-4 differ by 4.2 points of mIoU, three at
        # this rate by 2.0.
        lr=5e-5,
        head_multiplier=3.0,
        crf_lr=0.0,
        compatibility_lr=0.0,
        context_lr=0.0,
        warmup=5,
        clip_norm=1.0,
    )
    crf_fit = replace(fit, steps=80, batch_size=1, accumulate=4, context_lr=0.1)
    return Recipe(
        data=VocConfig(scored=ANIMALS),
        model=ModelConfig(
            # The paper's momentum would leave a fresh head's statistics at their start.
            network=replace(published_network(), batch_norm_momentum=0.1),
            min_size=CROP,
        ),
        augment=TransformConfig(scale=(0.5, 1.5), crop_size=CROP),
        start=FitConfig(steps=280, lr=3e-4, head_multiplier=5.0, warmup=20),
        fit=fit,
        crf_last=crf_fit,
        crf_fit=crf_fit,
        crf_augment=TransformConfig(),
        crf=CrfForm(
            theta_context=150.0,
            kernel_weights="class",
            normalization="after",
            learn_output_scale=True,
            resolution=2,
        ),
        search=SearchConfig(
            num_images=60,
            theta_gamma=(1.0,),
            spatial_weight=(3.0,),
            theta_alpha=(30.0, 60.0),
            theta_beta=(3.0, 6.0),
            bilateral_weight=(4.0, 8.0),
            rounds=2,
        ),
    )


# A coarse network whose CRF upsamples it: four times cheaper, and a start for every seed.


def voc12_animals_coarse() -> Recipe:
    """Train on the animals of VOC 2012 with the network at half the image's size.

    Logits sit at every 32nd pixel and the CRF, at half resolution, has to find the borders. Network
    and CRF learn together, at one rate for 300 steps. Every seed has a start of its own, every
    arm the same search behind its final network, and every CRF a bias.

    Command: python -m train compare voc12-animals-coarse --data.root VOCdevkit/VOC2012
             --model.backbone-weights mobilenetv2_100_imagenet.safetensors
             and, with the lists of `python -m data prepare voc-animals`, --data.train-list
             animals_train --data.tune-list animals_tune --data.report-list animals_report
    """
    base = voc12_animals_imagenet()
    fit = FitConfig(
        steps=300,
        lr=3e-4,
        head_multiplier=3.0,
        crf_lr=3e-3,
        compatibility_lr=3e-3,
        warmup=10,
        clip_norm=1.0,
        ema_decay=0.98,
        loss=LossConfig(unary=1.0),  # as in experiments/coarse-tries
    )
    return replace(
        base,
        model=replace(base.model, network_scale=2),
        start=FitConfig(steps=150, lr=3e-4, head_multiplier=5.0, warmup=20, ema_decay=0.95),
        fit=fit,
        crf_last=None,
        crf_fit=replace(fit, steps=150),
        crf_augment=None,
        crf=replace(base.crf, theta_context=None),
        search=SearchConfig(
            num_images=100,
            theta_gamma=(1.5, 3.0),
            spatial_weight=(1.0, 3.0),
            theta_alpha=(30.0, 60.0),
            theta_beta=(4.0, 8.0),
            bilateral_weight=(4.0, 8.0),
            bias=(0.5, 1.0, 1.5, 2.0),
            bias_direction="background",
            label_floor=0.01,
        ),
        search_again=True,
        start_per_seed=True,
    )


# The animals of VOC 2012 with clicks for masks: the CRF tells the network about all other pixels.


def voc12_animals_clicks() -> Recipe:
    """Train on real clicks, about five an image, in the place of masks; tune and report keep these.

    The network and the rest are those of `voc12-animals-coarse`. Joint training has the CRF's
    marginals teach the network, as well as the clicks before and behind the CRF:
    --fit.loss.teacher 0 leaves that out, --fit.loss.dense-crf 0.1 adds the dense-CRF loss.

    Command: python -m train compare voc12-animals-clicks --data.root VOCdevkit/VOC2012
             --model.backbone-weights mobilenetv2_100_imagenet.safetensors
             and the lists as for `voc12-animals-coarse`, after `python -m data prepare voc-clicks
             VOCdevkit/VOC2012 --clicks clicks.json`
    """
    base = voc12_animals_coarse()
    assert base.start is not None
    loss = LossConfig(unary=1.0, teacher=1.0)
    fit = replace(base.fit, crf_lr=1e-2, loss=loss)
    return replace(
        base,
        data=VocClicksConfig(scored=ANIMALS),
        start=replace(base.start, steps=200),
        fit=fit,
        crf_fit=replace(fit, steps=100),
        search=replace(base.search, num_images=60, bias=(0.5, 1.0, 2.0, 3.0)),
    )
