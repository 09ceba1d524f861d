"""What the tests of the Triton path share: it on CPU tensors, in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from crfrnn import triton_kernels

needs_triton = pytest.mark.skipif(
    not triton_kernels.available(), reason="Triton is not installed: it comes with PyTorch for GPUs"
)
needs_interpreter = pytest.mark.skipif(
    torch.cuda.is_available(), reason="beside a GPU the kernels are compiled, for its tensors alone"
)
