"""The trainings of the papers: DeepLab v1 to v3+, CRF-as-RNN and PAC-CRF."""

from __future__ import annotations

from dataclasses import replace

from crfrnn.presets import preset
from data import TransformConfig, VocConfig
from data.transforms import DEEPLAB_V2_SCALES, DEEPLAB_V3PLUS_SCALES
from eval.grid import SearchConfig
from models import CrfForm, builder, pretrained_config
from models.registry import Builder, PublishedRecipe
from train.losses import LossConfig
from train.recipe import FinishConfig, FitConfig, ModelConfig, Recipe

# What the recipes of the papers share: VOC 2012 with SBD's masks, and what follows the start.
#
# A recipe's `start` is the training of its paper. What follows it, S steps for the arms unary and
# joint, is this project's: no paper has it.

NUM_TRAIN = 10_582  # images of train_aug


def voc12_trainaug() -> VocConfig:
    """train_aug to train on; val, 1449 images, both to choose the CRF on and to score.

    The papers choose the CRF on a hundred images of val and score on all of val. To be strict,
    split a list off train_aug and pass it with --data.tune-list. The list train_aug and the masks
    that SBD adds are made by `python -m data prepare voc-trainaug --masks`.
    """
    return VocConfig(
        train_list="train_aug",
        tune_list="val",
        report_list="val",
        extra_masks="SegmentationClassAug",
    )


def published_training(paper: PublishedRecipe) -> FitConfig:
    """Convert the paper's training to ours."""
    return FitConfig(
        steps=paper.steps,
        batch_size=paper.batch,
        optimizer="sgd",
        momentum=0.9,
        lr=paper.lr,
        head_multiplier=paper.head_multiplier,
        bias_multiplier=paper.bias_multiplier,
        weight_decay=paper.weight_decay,
        schedule=paper.schedule,
        power=0.9,
        step_size=2000,
        loss=LossConfig(label_stride=paper.label_stride),
    )


def after_start(batch_size: int, steps: int) -> FitConfig:
    """Choose the training of the arms after the start; the rates are those of voc12-animals.

    A network that is trained takes little; a CRF that starts from searched values takes more, and
    rises longer. The losses on both sides of the CRF are at every pixel: it is there for them.
    """
    return FitConfig(
        steps=steps,
        batch_size=batch_size,
        lr=1e-5,
        warmup=steps // 20,
        crf_warmup=steps // 10,
        clip_norm=1.0,
    )


def from_paper(
    paper: Builder,
    augment: TransformConfig,
    search: SearchConfig,
    *,
    batch_size: int,
    min_size: int = 0,
) -> Recipe:
    """Build a comparison whose start is the training of a paper, from ImageNet.

    Args:
        paper: the network, and how its authors trained it.
        augment: what a training image goes through.
        search: of the post-hoc CRF.
        batch_size: of the arms after the start.
        min_size: see `ModelConfig`.
    """
    fit = after_start(batch_size=batch_size, steps=1000)
    return Recipe(
        data=voc12_trainaug(),
        model=ModelConfig(network=pretrained_config(paper.config), min_size=min_size),
        augment=augment,
        start=published_training(paper.recipe),
        fit=fit,
        crf_fit=replace(fit, steps=300),
        crf=crf_form(),
        search=search,
        workers=4,
    )


def mirrored_crops(paper: Builder) -> TransformConfig:
    """Crop as the paper does, mirrored half the time, at no other scale."""
    return TransformConfig(crop_size=paper.recipe.crop, scale=None, flip=True)


def crf_form() -> CrfForm:
    """Return the CRF of the authors' code, normalised per pixel, with weights for every class."""
    return CrfForm(
        kernel_weights="class",
        normalization="after",
        num_iterations=5,
        num_iterations_eval=10,
        learn_output_scale=True,
    )


# DeepLab v1: VGG-16 LargeFOV, alone and with multi-scale prediction.
#
# Chen, Papandreou, Kokkinos, Murphy and Yuille, "Semantic Image Segmentation with Deep
# Convolutional Nets and Fully Connected CRFs", ICLR 2015, section 4.1 and 5.


def deeplab_v1_largefov() -> Recipe:
    """DeepLab-LargeFOV from ImageNet's VGG-16, trained by the step schedule.

    Command: python -m train compare deeplab-v1-largefov --data.root VOCdevkit/VOC2012
    Cost: the start half a GPU-hour, 11 epochs; each arm a tenth of it besides its CRF. An
        estimate: three times the forward operations of results/networks.json at 20 TFLOP/s.
    Expect: val mIoU 62.25, with the post-hoc CRF 67.64 (the paper, recalled; a reproduction has
        62.34 and 67.58, with random scales and poly 65.44 and 69.60: to beat).
    Source: the paper and the authors' published prototxt. The batch of 20 is the paper's; the
        prototxt and the reproduction take 30 (--start.batch-size 30).
    """
    paper = builder("deeplab_v1_largefov")
    return from_paper(
        paper,
        mirrored_crops(paper),
        # The paper's ranges are 5..10, 50..100 and 3..10; what reproductions use, 121/5/4, lies
        # outside, and is on the grid.
        SearchConfig(
            num_images=100,
            theta_gamma=(3.0,),
            spatial_weight=(3.0,),
            theta_alpha=(50.0, 85.0, 121.0),
            theta_beta=(3.0, 5.0, 10.0),
            bilateral_weight=(4.0, 7.0, 10.0),
            rounds=2,
        ),
        batch_size=paper.recipe.batch,
    )


def deeplab_v1_msc() -> Recipe:
    """DeepLab-MSc-LargeFOV: the network first, then the branches alone.

    The branches are there from the beginning but frozen: drawn with a deviation of 0.001, they
    add next to nothing to the logits of the first stage.

    Command: python -m train compare deeplab-v1-msc --data.root VOCdevkit/VOC2012
    Cost: the start one GPU-hour, 23 epochs; each arm a twentieth of it besides its CRF. An
        estimate, made as that of deeplab-v1-largefov.
    Expect: val mIoU 64.21, with the post-hoc CRF 68.70 (the paper, recalled).
    Source: as deeplab-v1-largefov, section 3.3 of the paper; strides and initial deviations of
        the branches from one port of the prototxt.
    """
    paper = builder("deeplab_v1_largefov_msc")
    alone = deeplab_v1_largefov()
    assert alone.start is not None
    return replace(
        alone,
        model=ModelConfig(network=pretrained_config(paper.config)),
        start=replace(alone.start, frozen=("branches",)),
        finish=FinishConfig(replace(published_training(paper.recipe), frozen=("backbone", "fc8"))),
        # Of one reproduction: 83/5/4.
        search=replace(alone.search, theta_alpha=(50.0, 83.0, 116.0)),
    )


# DeepLab v2: VGG-16 and ResNet-101 with the atrous pyramid, trained by the poly schedule.
#
# Chen, Papandreou, Kokkinos, Murphy and Yuille, "DeepLab: Semantic Image Segmentation with Deep
# Convolutional Nets, Atrous Convolution, and Fully Connected CRFs", TPAMI 2018, section 4.1.


def deeplab_v2_vgg16() -> Recipe:
    """DeepLab-ASPP-L from ImageNet's VGG-16.

    Command: python -m train compare deeplab-v2-vgg16 --data.root VOCdevkit/VOC2012
    Cost: the start one and a half GPU-hours, 19 epochs; each arm a twentieth of it besides its
        CRF. An estimate: three times the forward operations of results/networks.json at
        20 TFLOP/s.
    Expect: val mIoU 68.96, with the post-hoc CRF 71.57 (the paper, recalled).
    Source: the paper and the authors' published prototxt: mirrored crops, no other scale. A
        reproduction of LargeFOV gains 0.6 with scales: --augment.scale 0.5 1.5.
    """
    paper = builder("deeplab_v2_vgg16_aspp_l")
    return from_paper(
        paper,
        mirrored_crops(paper),
        # The paper's ranges are 3..6, 30..100 and 3..6; the spatial kernel and 65/3/4 are those
        # of one reproduction.
        SearchConfig(
            num_images=100,
            theta_gamma=(2.0,),
            spatial_weight=(2.0,),
            theta_alpha=(30.0, 65.0, 100.0),
            theta_beta=(3.0, 6.0),
            bilateral_weight=(4.0, 6.0),
            rounds=2,
        ),
        batch_size=paper.recipe.batch,
    )


def deeplab_v2_resnet101() -> Recipe:
    """DeepLab-ASPP-L on ResNet-101, three scales in and four losses, from ImageNet.

    The losses are those of scale 1, of 0.75 enlarged, of 0.5 and of their maximum, each at the
    stride of its logits; BN keeps ImageNet's statistics and affine parameters.

    Command: python -m train compare deeplab-v2-resnet101 --data.root VOCdevkit/VOC2012
    Cost: the start two and a half GPU-hours, 19 epochs; each arm a twentieth of it besides its
        CRF. An estimate, made as that of deeplab-v2-vgg16.
    Expect: val mIoU 76.35, with the post-hoc CRF 77.69 (the paper, recalled), from COCO, which
        nobody publishes in torchvision's format. From ImageNet reproductions have 73.37 and,
        with CRF, 76.77; from COCO 76.65 and 77.93: to beat.
    Source: the paper and the authors' published prototxt. torchvision's weights have the stride
        in the 3x3 convolution, the authors' in the 1x1.
    """
    paper = builder("deeplab_v2_resnet101_aspp_l_msc")
    vgg = deeplab_v2_vgg16()
    return replace(
        vgg,
        model=ModelConfig(network=pretrained_config(paper.config)),
        augment=TransformConfig(crop_size=paper.recipe.crop, scale_steps=DEEPLAB_V2_SCALES),
        start=published_training(paper.recipe),
        # Of two reproductions: spatial 1/3, bilateral 67/3/4.
        search=replace(
            vgg.search,
            theta_gamma=(1.0,),
            spatial_weight=(3.0,),
            theta_alpha=(34.0, 67.0, 100.0),
        ),
    )


# DeepLab v3: ResNet-101 with image pooling in the pyramid, trained in two stages.
#
# Chen, Papandreou, Schroff and Adam, "Rethinking Atrous Convolution for Semantic Image
# Segmentation", 2017, section 4.


def deeplab_v3_resnet101() -> Recipe:
    """DeepLabv3 from ImageNet: stride 16 with BN trained, then stride 8 with BN frozen.

    Command: python -m train compare deeplab-v3-resnet101 --data.root VOCdevkit/VOC2012
             (or torchrun --nproc-per-node 4 -m train ... --start.batch-size 4 ..., BN over all)
    Cost: the start three GPU-hours for the first stage and ten for the second, 45 epochs each;
        each arm half an hour besides its CRF. An estimate: three times the forward operations of
        results/networks.json at 20 TFLOP/s. A batch of 16 at stride 8 wants 40 GB or
        --finish.fit.accumulate.
    Expect: val mIoU 77.21 after the first stage at stride 16; the same weights at stride 8 have
        78.51, with scales and mirrored 79.77 (the paper, recalled). The second stage is the
        paper's for the test server, where it has trained on trainval: 85.7 there. To beat: a
        reproduction with (1, 1, 1) at stride 16 has 76.49. The paper has no CRF.
    Source: the paper; the second stage here sees train_aug, so that val stays unseen.
    """
    first, second = builder("deeplab_v3_resnet101"), builder("deeplab_v3_resnet101_os8")
    recipe = from_paper(
        first,
        TransformConfig(crop_size=first.recipe.crop, scale=(0.5, 2.0), flip=True),
        # Our choice: what was published for DeepLab v2 on ResNet-101.
        SearchConfig(
            num_images=100,
            theta_gamma=(1.0,),
            spatial_weight=(3.0,),
            theta_alpha=(34.0, 67.0, 100.0),
            theta_beta=(3.0, 6.0),
            bilateral_weight=(4.0, 6.0),
            rounds=2,
        ),
        batch_size=8,
        min_size=first.recipe.crop,  # image pooling sees the same window in evaluation
    )
    stage_2 = published_training(second.recipe)
    return replace(recipe, finish=FinishConfig(stage_2, output_stride=8, freeze_batch_norm=True))


# DeepLab v3+: the decoder behind ResNet-101 and behind the aligned Xception.
#
# Chen, Zhu, Papandreou, Schroff and Adam, "Encoder-Decoder with Atrous Separable Convolution for
# Semantic Image Segmentation", ECCV 2018, section 4.


def deeplab_v3plus_resnet101() -> Recipe:
    """DeepLabv3+ on ResNet-101 at stride 16 from ImageNet.

    Command: python -m train compare deeplab-v3plus-resnet101 --data.root VOCdevkit/VOC2012
    Cost: the start four GPU-hours, 45 epochs; each arm a quarter of an hour besides its CRF. An
        estimate: three times the forward operations of results/networks.json at 20 TFLOP/s.
    Expect: val mIoU 78.85, with scales and mirrored 80.22 (the paper, recalled); reproductions
        have 79.16 and 79.92: to beat. The paper has no CRF.
    Source: the paper and the authors' release, whose weights of ImageNet these are not:
        torchvision's are.
    """
    return one_stage(builder("deeplab_v3plus_resnet101"))


def deeplab_v3plus_xception65() -> Recipe:
    """DeepLabv3+ on Xception-65, its pyramid and decoder separable, at stride 16 from ImageNet.

    Command: python -m train compare deeplab-v3plus-xception65 --data.root VOCdevkit/VOC2012
    Cost: the start two to six GPU-hours, 45 epochs: the operations say two, and depthwise
        convolutions are bound by memory; each arm a quarter of an hour besides its CRF. An
        estimate, made as that of deeplab-v3plus-resnet101.
    Expect: val mIoU 79.93, with scales and mirrored 81.44 (the paper, recalled), 79.79 with
        separable convolutions throughout; reproductions have 79.95 and 81.09: to beat. The paper
        has no CRF.
    Source: the paper and the authors' release: depthwise weights do not decay.
    """
    recipe = one_stage(builder("deeplab_v3plus_xception65"))
    assert recipe.start is not None
    return replace(
        recipe,
        augment=replace(recipe.augment, fill=(128, 128, 128)),  # what its input maps to zero
        start=replace(recipe.start, decay_depthwise=False),
    )


def one_stage(paper: Builder) -> Recipe:
    """Take data, arms and search of DeepLab v3, with the start in one stage."""
    return replace(
        deeplab_v3_resnet101(),
        model=ModelConfig(network=pretrained_config(paper.config), min_size=paper.recipe.crop),
        augment=TransformConfig(crop_size=paper.recipe.crop, scale_steps=DEEPLAB_V3PLUS_SCALES),
        start=published_training(paper.recipe),
        finish=None,
    )


# CRF-as-RNN: network and CRF trained together from a trained network.
#
# Zheng, Jayasumana, Romera-Paredes, Vineet, Su, Du, Huang and Torr, "Conditional Random Fields as
# Recurrent Neural Networks", ICCV 2015, sections 6 and 7; its released solver and layer files.

# The paper adds the losses of all pixels up and learns at 1e-13, its layer files 1e4 times as fast
# for both kernels' weights and 1e3 times for the compatibility. A mean over the 250,000 pixels of
# a 500 x 500 image has a gradient 250,000 times as short: the same steps take 250,000 times the
# rate.
PIXELS = 500 * 500
LR = 1e-13 * PIXELS  # 2.5e-8
KERNEL_LR = 1e4 * LR  # 2.5e-4
COMPATIBILITY_LR = 1e3 * LR  # 2.5e-5


def crf_as_rnn() -> Recipe:
    """Train jointly as the paper: one whole image a step, momentum 0.99, a constant rate.

    The CRF is the paper's: (L, L) kernel weights and compatibility, 5 iterations in training and
    10 in evaluation, and no loss before it. Nothing is searched: the grid is one point, scored on
    20 images.

    Command: python -m train compare crf-as-rnn --data.root VOCdevkit/VOC2012
             --model.weights deeplabv3_mobilenetv2_voc.safetensors
    Cost: 31,746 steps, 3 epochs, for each of unary, crf-only and joint: about twelve hours each on
        2 CPU cores. An estimate: 1.4 s an image, of which the CRF's updates and gradients at 500 x
        342 pixels and 21 labels are most (results/benchmark.json).
    Expect: from FCN-8s the paper has 69.6 against 63.7 of a CRF apart and 61.3 without, with COCO
        72.9, 69.5 and 68.3 (its reduced val, 346 images, recalled). From another network it is
        not known: the public MobileNetV2 model here has learnt from COCO and the SBD masks before.
    Source: the paper. Its network is FCN-8s; any trained one goes here (--model.builder NAME
        --model.weights FILE). Decay is FCN's. How many steps it took is not published: 3 epochs
        are our choice.
    """
    published = preset("crf_rnn")
    steps = 3 * NUM_TRAIN
    fit = FitConfig(
        steps=steps,
        batch_size=1,
        optimizer="sgd",
        momentum=0.99,
        lr=LR,
        crf_lr=KERNEL_LR,
        compatibility_lr=COMPATIBILITY_LR,
        weight_decay=5e-4,
        schedule="step",
        step_size=steps,  # never: the rate is constant
        loss=LossConfig(unary=0.0),
    )
    return Recipe(
        data=voc12_trainaug(),
        model=ModelConfig(min_size=513),
        augment=TransformConfig(),
        start=None,
        fit=fit,
        crf_fit=fit,
        crf=CrfForm(
            kernel_weights="matrix",
            compatibility="full",
            normalization=published.normalization,
            num_iterations=published.num_iterations,
            num_iterations_eval=published.num_iterations_eval,
        ),
        search=SearchConfig(
            num_images=20,
            theta_gamma=(published.theta_gamma,),
            spatial_weight=(published.spatial_weight,),
            theta_alpha=(published.theta_alpha,),
            theta_beta=(published.theta_beta,),
            bilateral_weight=(published.bilateral_weight,),
            rounds=0,
            calibrate=False,
        ),
        workers=2,
    )


# The two stages of PAC-CRF: the CRF alone, then network and CRF together, slowly.
#
# Su, Jampani, Sun, Gallo, Learned-Miller and Kautz, "Pixel-Adaptive Convolutional Neural
# Networks", CVPR 2019, section 5.

BATCH = 8  # whole images, one after another


def pac_crf() -> Recipe:
    """Follow the schedule of PAC-CRF on the dense CRF: 40 epochs of the CRF, 30 of both.

    Command: python -m train compare pac-crf --data.root VOCdevkit/VOC2012
             --model.weights deeplabv3_mobilenetv2_voc.safetensors
    Cost: 40 epochs of the CRF and 30 of both for the arm joint, 30 for unary and 40 for crf-only:
        seventeen days on 2 CPU cores for one seed. An estimate, made as that of crf-as-rnn;
        --crf.resolution 4 takes a sixteenth of the CRF's share, which is half.
    Expect: two to three points over the network, in the paper as for the dense CRF beside it
        (recalled, unchecked; its network is FCN). From another network it is not known.
    Source: the paper's schedule: Adam, 1e-3 for the CRF alone, 1e-7 for both. Its CRF is one of
        windows with learnt filters; this one is dense, with weights for every class. The batch of
        8 images is our choice.
    """
    base = crf_as_rnn()
    epoch = NUM_TRAIN // BATCH
    crf_first = FitConfig(
        steps=40 * epoch,
        batch_size=1,
        accumulate=BATCH,
        optimizer="adamw",  # without decay: Adam
        weight_decay=0.0,
        lr=1e-3,
        crf_lr=1e-3,
        compatibility_lr=1e-3,
        schedule="step",
        step_size=40 * epoch,  # never: the rate is constant
        loss=LossConfig(unary=0.0),
    )
    steps = 30 * epoch
    together = replace(
        crf_first, steps=steps, step_size=steps, lr=1e-7, crf_lr=1e-7, compatibility_lr=1e-7
    )
    return replace(
        base,
        fit=together,
        crf_first=crf_first,
        crf_fit=crf_first,
        crf=replace(base.crf, kernel_weights="class"),
    )
