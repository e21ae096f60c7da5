"""What a run will cost: the arithmetic by hand, and a plan of a real tiny run, which leaves nothing behind."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from pdadapt.data.load import load_dataset
from pdadapt.errors import PdadaptError, RunError
from pdadapt.pipeline import adapt
from pdadapt.planning.costs import Rates, Shape, cheaper_settings, costs, count_prompts, disk_bytes, total_seconds
from pdadapt.planning.plan import plan
from pdadapt.planning.table import plan_table
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe
from pdadapt.settings.schema import Recipe

RATES = Rates(
    start=6.0,
    load_student=1.0,
    load_teacher=10.0,
    document=0.1,
    document_tokens=100,
    document_bytes=1_000,
    document_text_bytes=500,
    query=0.01,
    score=0.001,
    prompt={"point": 0.5, "pair": 1.0},
    prompt_tokens={"point": 120, "pair": 220},
    begin_training=3.0,
    step=4.0,
    save=2.0,
    student_bytes=1e6,
)
RECIPE = Recipe.model_validate(
    {
        "retrieve": {"k": 10},
        "teacher": {"pair": {"per_query": 7, "window": 3}},
        "train": {"n_way": 8, "batch_size": 10, "held_out": 0.2, "save_steps": 5},
    }
)
SHAPE = Shape(documents=1_000, queries=200, test_queries=50)


def test_each_stage_costs_what_its_units_and_rates_say():
    found = {cost.stage: (cost.units, cost.seconds) for cost in costs(RECIPE, SHAPE, RATES)}
    assert found == {
        "index": (2_000, pytest.approx(200.0)),  # for the candidates, and to test the adapted
        "search": (300_000, pytest.approx(300.0 + 3.0)),  # the test queries twice
        "label points": (2_000, pytest.approx(1_000.0)),
        "label pairs": (2_800, pytest.approx(2_800.0)),  # in both orders
        "train": (16, pytest.approx(3.0 + 16 * 4.0 + 4 * 2.0)),  # 160 queries; states after 5, 10, 15, and the end
        "agreement": (640, pytest.approx(64.0)),  # 40 queries of 8 documents, by two students
        "general set": (480, pytest.approx(480 * (90 * 0.001 + 120 * 0.001))),
        "start": (1, 6.0),
        "load models": (9, pytest.approx(8 * 1.0 + 10.0)),
    }


def test_pairs_of_all_candidates_and_checks_cost_what_they_are():
    def found(recipe):
        return {cost.stage: (cost.units, cost.seconds) for cost in costs(recipe, SHAPE, RATES)}

    def changed(**train):
        return Recipe.model_validate(RECIPE.model_dump() | {"train": RECIPE.train.model_dump() | train})

    narrow = {"n_way": 4}
    assert found(changed(**narrow))["label pairs"][0] == 200 * 5 * 2  # of 4 documents there are no more
    assert found(changed(**narrow, list="pairs"))["label pairs"][0] == 200 * 7 * 2
    capped = found(changed(steps=500, max_epochs=2, checks=4))
    assert capped["train"] == (
        32,
        pytest.approx(3.0 + 32 * 4.0 + 11 * 2.0),
    )  # states after 5, ..., 30 and 8, 16, 24, 32
    assert capped["agreement"][0] == 640 + 5 * 40 * 8  # once before training, and four times in it
    unheld = found(changed(checks=4, held_out=0.05))  # 10 queries are too few to be held out
    assert "agreement" not in unheld and unheld["train"][0] == 20


def test_a_training_of_the_projection_encodes_its_lists_once():
    recipe = RECIPE.model_copy(update={"train": RECIPE.train.model_copy(update={"layers": 0, "epochs": 9})})
    for queries, documents in ((200, 1_000), (50, 50 * 8)):  # 1,000 documents are all; no query of 50 is held out
        shape = replace(SHAPE, queries=queries)
        [found] = (cost for cost in costs(recipe, shape, RATES) if cost.stage == "encode lists")
        assert (found.units, found.seconds) == (documents, pytest.approx(documents * RATES.document))
        without, stored = (
            disk_bytes(recipe, shape, replace(RATES, stored_bytes=size))["training states"] for size in (0, 2_000)
        )
        assert stored - without == documents * 2_000


def test_bm25_beside_the_student_costs_nothing_and_alone_saves_its_search():
    both, alone = (
        RECIPE.model_copy(update={"retrieve": RECIPE.retrieve.model_copy(update={"sources": sources})})
        for sources in (("student", "bm25"), ("bm25",))
    )
    assert costs(both, SHAPE, RATES) == costs(RECIPE, SHAPE, RATES)
    whole, found = ({cost.stage: cost for cost in costs(recipe, SHAPE, RATES)} for recipe in (RECIPE, alone))
    assert (found["index"].units, found["search"].units) == (2_000, 100_000)  # the test queries, by base and adapted
    assert {stage for stage in whole if whole[stage] != found[stage]} == {"search"}
    untested = {cost.stage: cost for cost in costs(alone, replace(SHAPE, test_queries=0), RATES)}
    assert untested.keys() == whole.keys() - {"index", "search"}
    assert disk_bytes(alone, SHAPE, RATES) == disk_bytes(RECIPE, SHAPE, RATES)
    assert disk_bytes(alone, replace(SHAPE, test_queries=0), RATES)["index"] == 0


def test_plan_costs_nothing_for_finished_stages():
    done = Shape(1_000, 200, 50, retrieved=1, labeled=1, trained=1, tested=2)
    assert {cost.stage for cost in costs(RECIPE, done, RATES)} == {"start", "general set", "load models"}
    assert costs(RECIPE, replace(done, guarded=2), RATES) == []
    half = Shape(1_000, 200, 50, retrieved=1, known={"point": 1_500})
    assert {c.stage: c.units for c in costs(RECIPE, half, RATES)}["label points"] == 500


def test_a_second_iteration_costs_at_most_as_much_again():
    twice = RECIPE.model_copy(update={"iterations": 2})
    assert count_prompts(twice, SHAPE, "pair") == count_prompts(RECIPE, SHAPE, "pair")
    assert (
        total_seconds(costs(RECIPE, SHAPE, RATES))
        < total_seconds(costs(twice, SHAPE, RATES))
        < 2 * total_seconds(costs(RECIPE, SHAPE, RATES))
    )


def test_cheaper_settings_save_what_they_leave_out():
    whole, ways = total_seconds(costs(RECIPE, SHAPE, RATES)), cheaper_settings(RECIPE, SHAPE, RATES)
    assert ways["--set teacher.pair.order=random"] == pytest.approx(whole - 1_400)
    assert ways["--set teacher.pair.per_query=3"] == pytest.approx(whole - 200 * 4 * 2)
    assert ways["--set retrieve.k=8"] == pytest.approx(whole - 200 * 2 * 0.5)
    assert ways["a teacher of half the parameters (--teacher)"] == pytest.approx(whole - 500 - 1_400)
    assert all(other < whole for other in ways.values()) and "--set train.max_epochs=20" not in ways
    long = RECIPE.model_copy(update={"train": RECIPE.train.model_copy(update={"steps": 1_000})})
    saved = total_seconds(costs(long, SHAPE, RATES)) - cheaper_settings(long, SHAPE, RATES)["--set train.max_epochs=20"]
    assert saved == pytest.approx((1_000 - 20 * 16) * (4.0 + 2.0 / 5))
    assert disk_bytes(RECIPE, SHAPE, RATES)["index"] == 1e6


@pytest.mark.slow
def test_a_plan_times_every_stage_and_leaves_nothing(tiny_recipe, beir, tmp_path):
    recipe = load_recipe(str(tiny_recipe), {"train.held_out": 0.5})
    found = plan(recipe, load_dataset(str(beir)), tmp_path / "run", Progress())
    stages = {cost.stage: cost for cost in found.costs}
    assert stages["label points"].units == 12 * 8 and stages["label pairs"].units == 12 * 4 * 2
    assert all(cost.seconds > 0 for cost in found.costs) and stages["train"].units == 12
    assert set(found.paper) == {"FiQA", "MS MARCO"} and found.paper["FiQA"] < found.paper["MS MARCO"]
    assert all(number > 0 for number in found.memory.values())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_plan_with_bm25_and_the_projection_alone_names_what_that_costs(tiny_recipe, beir, tmp_path):
    changes = {"teacher.model": "bm25", "teacher.pair.per_query": 0, "train.layers": 0}
    found = plan(load_recipe(str(tiny_recipe), changes), load_dataset(str(beir)), tmp_path / "run", Progress())
    stages = {cost.stage: cost for cost in found.costs}
    assert (stages["label points"].units, stages["encode lists"].units, stages["train"].units) == (12 * 8, 20, 12)
    assert all(cost.seconds > 0 for cost in found.costs)
    with_encoder = plan(
        load_recipe(str(tiny_recipe), changes | {"train.layers": None}), load_dataset(str(beir)), tmp_path, Progress()
    )
    assert found.disk["training states"] > with_encoder.disk["training states"], "the tokens are stored"
    assert not any("--teacher" in change for change in found.cheaper), "no teacher is cheaper than BM25"


@pytest.mark.slow
def test_queries_that_must_be_written_are_planned_too(tiny_recipe, beir, tmp_path):
    settings = {"generate.count": 6, "train.lambda_cl": 1.0, "generate.kinds": {"question": 1, "claim": 1}}
    recipe = load_recipe(str(tiny_recipe), settings)
    dataset = load_dataset(str(beir / "corpus.jsonl"))
    found = plan(recipe, dataset, tmp_path / "run", Progress())
    first, second, *_ = found.costs
    kept, tried = found.sample_kept
    assert [first.stage, second.stage] == ["start", "write queries"] and second.seconds > 0
    assert 0 <= kept <= tried == 16 and second.units == min(max(32, -(-6 * tried // kept) if kept else 128), 40)
    assert found.shape.embedded == len(dataset.corpus) == 20, "to choose among them"
    assert {cost.stage: cost.units for cost in found.costs}["label points"] == 6 * 8 and list(tmp_path.iterdir()) == []
    assert "--set generate.count=3" in found.cheaper
    cut = plan(load_recipe(str(tiny_recipe), {"generate.max_tokens": 1}), dataset, tmp_path / "run", Progress())
    assert cut.sample_kept == (0, 16) and cut.shape.written == 4 * 20, "all are cut off"
    assert "0 of a sample of 16 passed the text filters. The run may keep none." in printed(plan_table(cut))
    for wrong, message in (
        ({"generate.model": recipe.student.model}, "cannot write queries, since it is not an LLM"),
        ({"generate.examples": "nowhere.txt"}, "nowhere.txt not found"),
    ):
        with pytest.raises(PdadaptError, match=message):
            plan(load_recipe(str(tiny_recipe), wrong), dataset, tmp_path / "run", Progress())


def printed(table):
    with (console := Console(width=200)).capture() as captured:
        console.print(table, soft_wrap=True)
    return captured.get()


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"retrieve.k": 2},
        {"train.batch_size": 32, "train.lambda_cl": 0},
        {"retrieve.sources": ["student", "bm25"]},
        {"retrieve.sources": ["bm25"]},
        {"train.list": "pairs", "train.n_way": 3, "train.max_epochs": 1},
    ],
)
def test_a_corpus_smaller_than_the_sample_and_lists_without_pairs_can_be_planned(tiny_recipe, beir, tmp_path, settings):
    found = plan(load_recipe(str(tiny_recipe), settings), load_dataset(str(beir)), tmp_path / "run", Progress())
    stages = {cost.stage: cost.units for cost in found.costs}
    assert stages["label points"] == 12 * settings.get("retrieve.k", 8)
    assert stages["label pairs"] == 12 * 2 * (1 if "retrieve.k" in settings else 4)


@pytest.mark.slow
def test_plan_of_a_restart_ignores_what_it_removes(tiny_recipe, beir, tmp_path):
    recipe, dataset, out = load_recipe(str(tiny_recipe)), load_dataset(str(beir)), tmp_path / "run"
    adapt(recipe, dataset, out, Progress())
    assert plan(recipe, dataset, out, Progress()) is None
    other = load_recipe(str(tiny_recipe), {"train.learning_rate": 1e-4})
    with pytest.raises(RunError, match="--restart-from train"):
        plan(other, dataset, out, Progress())
    found = {cost.stage: cost.units for cost in plan(other, dataset, out, Progress(), "train").costs}
    assert found == {"start": 1, "index": 20, "search": 6 * 20, "train": 12, "load models": 2}
    assert (out / "iteration-1" / "checkpoint").exists()


@pytest.mark.subprocess
def test_the_command_prints_the_plan_and_a_run_of_other_settings_is_said(tiny_recipe, beir, tmp_path):
    command = ["adapt", "--corpus", beir, "--recipe", tiny_recipe, "--out", tmp_path / "run", "--plan"]
    process = subprocess.run(
        [sys.executable, "-m", "pdadapt", *map(str, command)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "140"},
    )
    assert process.returncode == 0, process.stderr
    for words in (
        "label pairs",
        "96 prompts",
        "Peak disk use",
        "Cheaper: --set teacher.pair.per_query=2",
        "MS MARCO",
    ):
        assert words in process.stdout, words
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    with pytest.raises(RunError, match="holds no run"):
        plan(load_recipe(str(tiny_recipe)), load_dataset(str(beir)), tmp_path / "run", Progress())
