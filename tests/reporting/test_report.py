"""The page that a run leaves: what it holds, and that it holds nothing else."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from pdadapt.errors import RunError
from pdadapt.reporting.report import write_report

EVIL = "<script>alert('x')</script><img src=http://x.example/y> & \"quoted\""


class Page(HTMLParser):
    """Elements with their attributes, and the text outside of <style>."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.pieces, self._open = [], [], []
        self.feed(text)
        self.close()
        assert not self._open, "elements that are not closed"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta",):
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if not self._open or self._open[-1] != "style":
            self.pieces.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.pieces))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def plots(self):
        return {svg["aria-label"] for svg in self.all("svg")}


def page_of(run):
    return Page(write_report(run).read_text(encoding="utf-8"))


def change_metrics(run, **values):
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    (run / "metrics.json").write_text(json.dumps(metrics | values), encoding="utf-8")
    return metrics


def test_the_page_holds_what_a_run_is_about(small_run):
    page = page_of(small_run)
    assert page.text.index("Helped: nDCG@10 0.500 → 0.750 (p = 0.031).") < page.text.index("Base against adapted")
    for part in (
        "small: 20 documents; 2 queries to adapt on.",
        "tiny/student",
        "tiny/teacher",
        "nDCG@10 0.5000 0.7500 +0.2500 ± 0.2000 0.031 1 / 1 / 1",
        "pair accuracy 0.5000 0.7500",
        "nDCG@10 0.8125 0.8125",
        "point labels 1,234",
        "flip rate: pairs whose answer depends on the order 50.0 %",
        "position bias: log-odds for the first document −1.50",
        "pairs that contradict the points 33.3 %",
        "0.25 → 1.00 how to true a wheel",
        "grade 2 Rims true the rim",
        "not judged d2 bleed the brake",
        "label points 2.0 min 75 % 1,200 prompts 10.0 prompts/s",
        "index 40.0 s 25 % 20 documents 2.0 s each",
        "total 2.7 min",
        "student: {model: tiny/student}",
        "versions.pdadapt 0.1.0",
        "corpus_sha256 cafe",
    ):
        assert part in page.text, part
    assert page.plots == {
        "Change from the base to the adapted student with 95 % intervals: nDCG@10 +0.2500",
        "Gain in nDCG@10 of each of 3 test queries: 1 rose, 1 fell, the rest stayed",
        "Distribution of 4 point labels: median 1.50, from 0.50 to 3.00",
        "Distribution of the log-odds of 3 pairs: 1 are below zero",
        "Share of the pairs on which the points agree, by the teacher's confidence: "
        "0.6 to 0.7: 100% of 1; 0.8 to 0.9: 0% of 1; 0.9 to 1.0: 100% of 1",
        "Loss over 20 steps, first to last logged: loss 0.7500 to 0.5000; L_KD 0.5000 to 0.3750; L_pair 0.2500 to "
        "0.1250",
    }


def test_the_page_loads_nothing_runs_nothing_and_is_built_right(small_run):
    text = write_report(small_run).read_text(encoding="utf-8")
    page = Page(text)
    assert "http:" not in text and "https:" not in text and "url(" not in re.sub(r"url\(#\w+\)", "", text)
    assert not {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "object", "embed", "base"}
    every = [attributes for _, attributes in page.elements]
    assert not any(name in attributes for attributes in every for name in ("src", "srcset", "data", "action"))
    assert not any(name.startswith("on") for attributes in every for name in attributes)
    ids = [attributes["id"] for attributes in every if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [value for attributes in every for name, value in attributes.items() if name.endswith("href")]
    assert links and {link[0] for link in links} == {"#"} and {link[1:] for link in links} <= set(ids)
    assert set(re.findall(r"url\(#(\w+)\)", text)) <= set(ids)
    assert {attributes["scope"] for attributes in page.all("th")} == {"row", "col"}
    assert all(svg["role"] == "img" for svg in page.all("svg"))
    assert len(page.all("style")) == 1 and "#0000f" not in text


def test_report_escapes_texts_from_data(small_run):
    metrics = change_metrics(small_run)
    changed = metrics["most_changed"]["gained"][0] | {"query": EVIL}
    changed["documents"] = [[{"doc_id": EVIL, "title": EVIL, "text": EVIL, "grade": 1}]] * 2
    measure = f"Judged@{EVIL}"
    values = {
        "summary": EVIL,
        "checkpoint": EVIL,
        "verdict": {"outcome": EVIL, "sentence": EVIL},
        "measures": {measure: metrics["measures"]["nDCG@10"]},
        "most_changed": {"gained": [changed], "lost": [changed]},
    }
    change_metrics(small_run, **values)
    for name in ("recipe.yaml", "run.json"):
        text = (small_run / name).read_text(encoding="utf-8")
        (small_run / name).write_text(text.replace("tiny/student", f"'{EVIL}'".replace("'x'", "x")), encoding="utf-8")
    (small_run / "run.json").write_text(json.dumps({"corpus": EVIL, "versions": {"pdadapt": EVIL}}), encoding="utf-8")
    text = write_report(small_run).read_text(encoding="utf-8")
    page = Page(text)
    assert not page.all("script") and not page.all("img")
    assert text.count("&lt;script&gt;") > 15 and "<script" not in text
    assert measure in page.text and any(measure in label for label in page.plots)


@pytest.mark.subprocess
def test_the_same_run_gives_the_same_bytes(small_run):
    first = write_report(small_run).read_bytes()
    for seed in ("1", "2"):
        process = subprocess.run(
            [sys.executable, "-m", "pdadapt", "report", str(small_run)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        assert (process.returncode, process.stdout.strip()) == (0, str(small_run / "report.html")), process.stderr
        assert (small_run / "report.html").read_bytes() == first


def test_a_run_that_has_just_begun_has_a_page(small_run):
    for file in [small_run / "metrics.json", small_run / "queries.tsv", small_run / "timings.jsonl"]:
        file.unlink()
    for file in (small_run / "iteration-1").iterdir():
        file.unlink()
    page = page_of(small_run)
    assert "Not finished yet: last seen before its first task." in page.text and "tiny/student" in page.text
    assert not page.plots
    for title in ("Base against adapted", "Without judgments", "Labels and training", "Queries that", "Costs"):
        assert title not in page.text


def test_a_run_that_was_stopped_while_training_has_a_page_of_what_there_is(small_run):
    for name in ("metrics.json", "queries.tsv", "iteration-1/agreement.json"):
        (small_run / name).unlink()
    state = {"task": "iteration 1: train", "unit": "steps", "done": 6, "total": 20, "seconds": 3.0, "updated": 0}
    (small_run / "progress.json").write_text(json.dumps(state), encoding="utf-8")
    with open(small_run / "iteration-1" / "train.jsonl", "a", encoding="utf-8") as curve:
        curve.write('{"step": 21, "lo')  # being written
    page = page_of(small_run)
    assert "Not finished yet: last seen at iteration 1: train, 6 of 20 steps." in page.text
    assert "point labels 1,234" in page.text and "Costs" in page.text and "Base against adapted" not in page.text
    assert len(page.plots) == 4 and any(label.startswith("Loss over 20 steps") for label in page.plots)


def test_without_judgments_the_page_says_that_nothing_was_measured(small_run):
    change_metrics(small_run, measures={}, most_changed={"gained": [], "lost": []}, test_queries=0)
    (small_run / "queries.tsv").unlink()
    page = page_of(small_run)
    assert "has no judgments, so nothing was measured" in page.text and "pair accuracy" in page.text
    assert len(page.plots) == 4


def test_derived_pairs_have_no_calibration(small_run):
    labels = json.loads((small_run / "iteration-1" / "labels.json").read_text(encoding="utf-8")) | {"pairs_derived": 3}
    (small_run / "iteration-1" / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    page = page_of(small_run)
    assert "Derived from the points" in page.text and "Calibration" not in page.text


@pytest.mark.slow
def test_of_several_iterations_each_has_its_rows_and_plots(small_run):
    second = small_run / "iteration-2"
    second.mkdir()
    for file in (small_run / "iteration-1").iterdir():
        (second / file.name).write_bytes(file.read_bytes())
    found = change_metrics(small_run)["measures"]["nDCG@10"]
    more = {
        "means": [0.5, 0.75, 0.875],
        "comparisons": [found["comparisons"][0], found["comparisons"][0] | {"system": 2}],
    }
    change_metrics(small_run, measures={"nDCG@10": more}, iteration=2)
    values = (small_run / "queries.tsv").read_text(encoding="utf-8").splitlines()
    values = [values[0] + "\titeration-2", *(f"{line}\t1.0" for line in values[1:])]
    (small_run / "queries.tsv").write_text("\n".join(values) + "\n", encoding="utf-8")
    page = page_of(small_run)
    for part in ("nDCG@10, iteration 1 0.5000 0.7500", "nDCG@10, iteration 2 0.5000 0.8750", "(Holm)"):
        assert part in page.text
    for part in ("pair accuracy, iteration 2", "iteration 1 iteration 2 point labels 1,234 1,234"):
        assert part in page.text
    assert "Gain in nDCG@10 of each of 3 test queries: 3 rose, 0 fell, the rest stayed" in page.plots
    assert len(page.all("svg")) == 2 + 2 * 4


@pytest.mark.slow
def test_checks_during_training_have_their_plot(small_run):
    rows = '{"step": 10, "value": 0.75}\n{"step": 20, "value": 0.5}\n'
    (small_run / "iteration-1" / "checks.jsonl").write_text(rows, encoding="utf-8")
    plots = page_of(small_run).plots
    assert "Agreement with the teacher at 2 checks during training: best 0.7500 at step 10 of 20" in plots


def test_labels_and_losses_without_any_spread_have_their_plots(small_run):
    row = {"query_id": "q7", "doc_ids": ["d1", "d2"], "points": [1.0, 1.0], "pairs": [[0, 1, 0.0]]}
    (small_run / "iteration-1" / "lists.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (small_run / "iteration-1" / "train.jsonl").write_text(
        '{"step": 1, "loss": 0.0}\n{"step": 2, "loss": 0.5, "kd": 0.5}\n'
    )
    one = change_metrics(small_run)["measures"]["nDCG@10"]
    still = one["comparisons"][0] | {"change": 0.0, "interval": None}
    change_metrics(small_run, measures={"nDCG@10": {"means": [0.5, 0.5], "comparisons": [still]}})
    (small_run / "queries.tsv").write_text(
        "query_id\tmeasure\tbase\titeration-1\nq1\tnDCG@10\t0.5\t0.5\n", encoding="utf-8"
    )
    page = page_of(small_run)
    assert len(page.plots) == 6 and "+0.0000 0.031" in page.text
    assert "Loss over 2 steps, first to last logged: L_KD 0.0000 to 0.5000" in page.plots


def test_a_folder_that_is_no_run_is_said_and_left_alone(tmp_path, small_run):
    with pytest.raises(RunError, match=r"holds no run\. Give the folder of a `pdadapt adapt`"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(RunError, match="holds no run"):
        write_report(tmp_path / "nowhere")
    (small_run / "run.json").write_text('{"corpus": "squad", "reranker": "sha256:0"}', encoding="utf-8")
    with pytest.raises(RunError, match="train-reranker"):
        write_report(small_run)


def test_a_line_of_timings_that_a_kill_has_torn_is_left_out(small_run):
    with open(small_run / "timings.jsonl", "a", encoding="utf-8") as file:
        file.write('{"task": "ind{"task": "index", "units": 1}\n')
    assert write_report(small_run).exists()


@pytest.mark.parametrize(("name", "key"), [("metrics.json", "verdict"), ("iteration-1/labels.json", "points")])
def test_a_file_that_lacks_a_value_is_named_with_the_value(small_run, name, key):
    tree = json.loads((small_run / name).read_text(encoding="utf-8"))
    del tree[key]
    (small_run / name).write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(RunError, match=rf"{re.escape(name)} lacks '{key}'\. Remove the file and repeat"):
        write_report(small_run)


@pytest.mark.parametrize("name", ["metrics.json", "run.json", "iteration-1/labels.json", "iteration-1/lists.jsonl"])
def test_a_damaged_file_is_named(small_run, name):
    (small_run / name).write_text('{"task": \n', encoding="utf-8")
    with pytest.raises(RunError, match=rf"{re.escape(name)} is damaged"):
        write_report(small_run)


def test_report_that_cannot_be_written_is_an_error(small_run):
    (small_run / "report.html.part").mkdir()
    with pytest.raises(RunError, match=r"report\.html cannot be written \(Is a directory\)"):
        write_report(small_run)


def test_letters_and_plots_stand_out_in_light_and_dark(small_run):
    text = write_report(small_run).read_text(encoding="utf-8")
    themes = [
        dict(re.findall(r"--(\w+): (#\w{6})", rules)) for rules in re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    ]
    assert len(themes) == 2 and set(themes[0]) == set(themes[1])
    for theme in themes:
        assert all(contrast(theme[name], theme["page"]) >= 7 for name in ("text",))
        assert all(contrast(theme[name], theme["page"]) >= 4.5 for name in ("muted", "good", "bad"))
        assert all(contrast(theme[name], theme["page"]) >= 3 for name in ("first", "second", "third"))
    assert contrast(themes[0]["page"], themes[1]["page"]) > 10  # one is light, one is dark
    assert set(re.findall(r"var\(--(\w+)\)", text)) <= set(themes[0])


def contrast(one, other):
    """WCAG 2's ratio of two colours."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("values", "rises"), [([0.5, 0.6, 0.7], True), ([0.5, 0.7, 0.7], False), ([0.5, 0.7], False)])
def test_report_says_that_agreement_still_rises_if_the_last_check_is_the_best(small_run, values, rises):
    rows = "".join(json.dumps({"step": 10 * place, "value": value}) + "\n" for place, value in enumerate(values))
    (small_run / "iteration-1" / "checks.jsonl").write_text(rows, encoding="utf-8")
    assert ("still rose at the end" in page_of(small_run).text) == rises
