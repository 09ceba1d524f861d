"""Write the pages of tables: docs/performance.md, networks.md, comparisons.md, of results/*.json.

python -m benchmarks.pages
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from benchmarks import crf, filters, folder, gpu, networks, patterns
from benchmarks.measure import Results
from eval.runs import Comparison, of_results
from eval.tables import commit_line, duration, machine_line, markdown_block

ROOT = Path(__file__).resolve().parents[1]

Section = tuple[str, str, str, Callable[[Results], str]]  # title, files, text, table


def comparison(results: Results) -> str:
    """Write the table of arms of a results.json."""
    return markdown_block(Comparison([of_results(results)]))


def tuning(results: Results) -> str:
    """Write the scores before and behind the best setting of a `python -m eval tune`."""
    searched, held_out = [], []
    titles = {
        "miou": "mIoU",
        "trimap_miou": f"trimap mIoU {results['trimap_width']} px",
        "nll": "NLL",
    }
    for name, title in titles.items():

        def said(value: float, sign: str = "", name: str = name) -> str:
            return f"{value:{sign}.4f}" if name == "nll" else f"{100 * value:{sign}.2f}"

        before, after = results["network"][name], results["best"][name]
        cells = (results["split"], title, said(before), said(after), said(after - before, "+"))
        searched.append(f"| {' | '.join(cells)} |")
        report = (results["report"] or {}).get(name)
        if report is not None and report["difference"] is not None:
            change = {key: said(value, "+") for key, value in report["difference"].items()}
            interval = "{value} [{low}, {high}]".format(**change)
            cells = ("report", title, said(report["network"]), said(report["crf"]), interval)
            held_out.append(f"| {' | '.join(cells)} |")
    (layer,) = (line for line in results["code"].splitlines() if line.startswith("crf = "))
    return "\n".join(
        [
            f"```\n{results['command']}\n```",
            "",
            f"- {results['settings']} settings x {len(results['images'])} images of the "
            f"{results['split']} split in {duration(results['measuring_seconds'])}; "
            f"{machine_line(results)}",
            f"- commit {commit_line(results)}",
            f"- found: `{layer.split('  #')[0]}`",
            "",
            "| split | score | network | with the CRF | difference |",
            "| --- | --- | ---: | ---: | ---: |",
            *searched,
            *held_out,
            "",
            "mIoU in per cent and points, NLL in nats a pixel: on the tune split at the best "
            "temperature of each, on the report split at the one found on tune. The brackets are "
            "95 % intervals of the paired difference over the images; on the images that were "
            "searched there is none, for the setting is the best of many there.",
        ]
    )


def kernels(results: Results) -> str:
    """Write the table of the compiled kernels; importing its script needs Triton."""
    from benchmarks.kernels import table

    return table(results)


PAGES: dict[str, tuple[str, list[Section]]] = {
    "docs/performance.md": (
        "Speed, memory and error",
        [
            ("The CRF on the CPU", "crf.json",
             "The layer beside every peer that can be imported, in turn in one run, after a check "
             "that all of them compute the same CRF.", crf.table),
            ("The calls of public projects", "patterns.json",
             "The dense-CRF step of ten projects, written anew in their order of calls and run "
             "with the C++ package and with `crfrnn.densecrf`: only the import differs.",
             patterns.table),
            ("A folder", "folder.json",
             "`crfrnn refine` on the first photographs of a data set with the maps of a published "
             "network, 21 labels, beside a Pool around the C++ package; one process of `crfrnn "
             "refine` uses both cores.", folder.table),
            ("A folder, killed and resumed", "folder-whole.json",
             "The same command on all photographs.", folder.table),
            ("The filters", "filters.json",
             "How close each filter comes to the exact sum, and what that costs.", filters.table),
            ("The CRF on a GPU", "gpu*.json", "docs/gpu.md has the order of the commands.",
             gpu.table),
            ("The kernels of the GPU, compiled", "kernels.json",
             "What the compiler makes of each, without a GPU.", kernels),
        ],
    ),
    "docs/networks.md": (
        "The networks in numbers",
        [("All networks", "networks.json",
          "`python -m benchmarks.networks` without `--no-speed` adds time and peak memory of "
          "inference and training, with and without the CRF.", networks.table)],
    ),
    "docs/comparisons.md": (
        "Comparisons of the arms",
        [
            ("Animals of VOC 2012, a weak network", "voc12-animals-imagenet.json",
             "The time of start covers its scores alone; its training took eleven minutes more.",
             comparison),
            ("Animals of VOC 2012, a strong network", "voc12-animals.json",
             "A published DeepLabv3 on MobileNetV2.", comparison),
            ("CamVid", "camvid.json", "11 classes, the CRF at full resolution.", comparison),
            ("Collage, the embedded data set", "demo.json", "What `make demo` prints.", comparison),
            ("A post-hoc CRF, tuned", "tune.json",
             "Behind the published DeepLabv3 on MobileNetV2, without any training.", tuning),
        ],
    ),
}  # fmt: skip


def pages(root: Path = ROOT) -> dict[Path, str]:
    """Make the text of every page from the results that are stored."""
    made = {}
    for name, (title, sections) in PAGES.items():
        parts = [f"# {title}", "Written by `python -m benchmarks.pages` from results/*.json."]
        for heading, pattern, text, table in sections:
            for path in sorted((root / "results").glob(pattern)):
                results = json.loads(path.read_text(encoding="utf-8"))
                parts += [f"## {heading}", f"{text} Stored in results/{path.name}:", table(results)]
        made[root / name] = "\n\n".join(parts) + "\n"
    return made


if __name__ == "__main__":
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
