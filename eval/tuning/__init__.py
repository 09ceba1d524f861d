"""A post-hoc CRF's widths and weights, found on labelled images behind a frozen network."""
