"""Store the runs of experiments, write RESULTS.md and its pages, check every published number."""
