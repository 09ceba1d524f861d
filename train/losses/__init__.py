"""Losses of a segmentation, one a file; `train.objective` weighs and adds them."""
