"""Checks during training: the best state is kept, and training stops when nothing better comes."""

import itertools
import json
from dataclasses import replace

import pytest

from pdadapt import pipeline
from pdadapt.data.load import load_dataset
from pdadapt.errors import RecipeError
from pdadapt.labeling.training_list import TrainingList, write_lists
from pdadapt.preflight import start_context
from pdadapt.runs.folder import RunFolder
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe
from pdadapt.settings.schema import TrainSettings
from pdadapt.students.colbert import get_lengths, load_colbert
from pdadapt.students.load import save_student
from pdadapt.training import stage
from pdadapt.training.early_stopping import EarlyStopping, measured_steps
from pdadapt.training.trainer import train


def settings(**more):
    values = {"batch_size": 2, "n_way": 3, "steps": 6, "save_steps": 1, "learning_rate": 1e-3, "check_steps": 2}
    return TrainSettings(**values | {"document_length": 64} | more)


@pytest.fixture
def inputs(beir):
    dataset = load_dataset(str(beir))
    doc_ids = [document.doc_id for document in dataset.corpus][:3]
    lists = [TrainingList(query_id, doc_ids, [2.0, 1.0, 0.0], []) for query_id in list(dataset.queries)[:4]]
    return lists, dataset.corpus, dataset.queries


def run(stanford, inputs, folder, chosen, values, base=0.0):
    """Train, with a measure that gives `base` before training and then these values; (steps checked, their values)."""
    told = iter(values if (folder / "checks.jsonl").exists() else itertools.chain([base], values))
    lengths = []

    def measure(student):
        lengths.append(get_lengths(student))
        student.eval()
        return next(told)

    train(load_colbert(str(stanford)), *inputs, chosen, 1, folder, Progress(), measure)  # type: ignore[call-arg]
    assert set(lengths) == {get_lengths(load_colbert(str(stanford)))}, "measured with the lengths of the index"
    rows = [json.loads(line) for line in (folder / "checks.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (rows[0]["step"], rows[0]["value"]) == (0, base)
    return [(row["step"], row["value"]) for row in rows[1:]]


def weights(folder):
    return (folder / "checkpoint" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_best_state_becomes_the_checkpoint(stanford, inputs, tmp_path):
    assert run(stanford, inputs, tmp_path / "a", settings(), [0.5, 0.7, 0.6]) == [(2, 0.5), (4, 0.7), (6, 0.6)]
    run(stanford, inputs, tmp_path / "b", settings(), [0.5, 0.6, 0.7])
    run(stanford, inputs, tmp_path / "plain", settings(check_steps=4, patience=1), [0.5, 0.6])
    assert weights(tmp_path / "b") == weights(tmp_path / "plain") != weights(tmp_path / "a")
    assert not (tmp_path / "a" / "best").exists()


@pytest.mark.slow
def test_the_student_before_training_is_kept_if_no_check_is_better(stanford, inputs, tmp_path):
    student = load_colbert(str(stanford))
    run(stanford, inputs, tmp_path / "a", settings(), [0.5, 0.7, 0.7], base=0.7)
    save_student(student, tmp_path / "before")
    assert weights(tmp_path / "a") == (tmp_path / "before" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_training_stops_when_checks_bring_nothing_better(stanford, inputs, tmp_path):
    found = run(stanford, inputs, tmp_path / "a", settings(steps=40, patience=2), [0.5, 0.7, 0.6, 0.7])
    assert [step for step, _ in found] == [2, 4, 6, 8]
    run(stanford, inputs, tmp_path / "b", settings(steps=40, patience=1), [0.5, 0.7, 0.6])
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


@pytest.mark.slow
def test_after_a_kill_the_checks_behind_the_state_are_made_again(stanford, inputs, tmp_path):
    run(stanford, inputs, tmp_path / "whole", settings(), [0.5, 0.7, 0.6])

    class Killed(BaseException):
        pass

    def killed():
        yield from [0.5, 0.7]
        raise Killed

    with pytest.raises(Killed):
        run(stanford, inputs, tmp_path / "killed", settings(), killed())
    (tmp_path / "killed" / "trainer" / "checkpoint-5" / "complete").unlink()
    (tmp_path / "killed" / "trainer" / "checkpoint-4" / "complete").unlink(missing_ok=True)
    run(stanford, inputs, tmp_path / "killed", settings(), [0.5, 0.7, 0.6])
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


@pytest.mark.parametrize("steps", [1, 3, 10, 25, 113, 30_000])
def test_checks_are_spread_evenly_over_a_training_of_any_length(steps):
    found = sorted(measured_steps(TrainSettings(checks=10), steps))
    assert len(found) == min(10, steps) and found[-1] == steps
    gaps = {after - before for before, after in zip([0, *found], found, strict=False)}
    assert max(gaps) - min(gaps) <= 1


def test_checks_every_so_many_steps_end_with_the_training():
    assert measured_steps(TrainSettings(check_steps=4), 10) == {4, 8, 10}
    assert measured_steps(TrainSettings(check_steps=4), 8) == {4, 8}
    assert measured_steps(TrainSettings(check_steps=400), 10) == {10}
    assert measured_steps(TrainSettings(), 10) == set()


def between_saves(**more):
    """Checks after 3, 5 and 7 steps, and states that are saved after 4 besides."""
    return settings(check_steps=None, checks=3, steps=7, save_steps=4, **more)


@pytest.mark.slow
def test_a_check_needs_no_step_at_which_states_are_saved_anyway(stanford, inputs, tmp_path):
    assert run(stanford, inputs, tmp_path / "a", between_saves(), [0.5, 0.7, 0.6]) == [(3, 0.5), (5, 0.7), (7, 0.6)]
    same = settings(check_steps=5, steps=7, save_steps=5)
    assert run(stanford, inputs, tmp_path / "b", same, [0.7, 0.6]) == [(5, 0.7), (7, 0.6)]
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


@pytest.mark.slow
def test_killed_after_a_check_it_goes_on_from_there_to_the_same_files(stanford, inputs, tmp_path):
    class Killed(BaseException):
        pass

    def killed():
        yield from [0.5, 0.6]
        raise Killed

    run(stanford, inputs, tmp_path / "whole", between_saves(), [0.5, 0.6, 0.7])
    with pytest.raises(Killed):
        run(stanford, inputs, tmp_path / "killed", between_saves(), killed())
    assert (tmp_path / "killed" / "trainer" / "checkpoint-5" / "complete").exists()
    assert run(stanford, inputs, tmp_path / "killed", between_saves(), [0.7]) == [(3, 0.5), (5, 0.6), (7, 0.7)]
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    curves = [(tmp_path / name / "train.jsonl").read_text(encoding="utf-8") for name in ("whole", "killed")]
    assert curves[0] == curves[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("queries", "points", "said"),
    [
        (12, [2.0, 1.0, 0.0], "No queries are held out, so the last state"),
        (60, [1.0, 1.0, 1.0], "The teacher distinguishes no documents of the held-out queries, so the last state"),
    ],
)
def test_checks_without_judging_queries_keep_the_last_state_and_say_so(
    queries, points, said, stanford, beir, tmp_path, capsys
):
    dataset = load_dataset(str(beir))
    texts = {f"q{number}": "true the rim" for number in range(queries)}
    run = RunFolder(tmp_path / "run")
    save_student(load_colbert(str(stanford)), run.student)
    doc_ids = [document.doc_id for document in dataset.corpus][:3]
    lists = [TrainingList(query_id, doc_ids, points, []) for query_id in texts]
    write_lists(run.iteration(1) / "lists.jsonl", lists)
    values = {"steps": 4, "batch_size": 2, "n_way": 3, "checks": 2, "held_out": 0.5, "lambda_pair": 0}
    recipe = load_recipe("demo", {"student.model": str(stanford), **{f"train.{key}": values[key] for key in values}})
    stage.train_student(start_context(recipe, replace(dataset, queries=texts), run, Progress()), 1)
    assert said in " ".join(capsys.readouterr().err.split())
    assert run.checkpoint(1).exists() and not (run.iteration(1) / "checks.jsonl").exists()


@pytest.mark.slow
def test_far_more_passes_than_the_papers_are_said_before_any_work(tiny_recipe, beir, tmp_path, capsys):
    def said(**train):
        recipe = load_recipe(str(tiny_recipe), {f"train.{key}": value for key, value in train.items()})
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        pipeline.adapt(recipe, load_dataset(str(beir)), out, Progress(), stop_before_labeling=True)
        return " ".join(capsys.readouterr().err.split())

    sentence = (
        "Training takes 30,000 steps, which are 10,000 passes over 12 queries (over FiQA's 5,500: 174). Set train.max_"
    )
    assert sentence in said(steps=30_000)
    assert "passes" not in said(steps=30_000, max_epochs=20)
    assert "passes" not in said(steps=1_044), "twice the paper's are not far more"
    assert "1,045 steps" in said(steps=1_045)
    assert "passes" not in said(steps=None, epochs=500), "who says passes knows them"


def test_checks_want_queries_held_out_and_one_way_to_say_when(tmp_path):
    with pytest.raises(RecipeError, match=r"checks and check_steps are both set.*\. Set one of them to null"):
        load_recipe("demo", {"train.check_steps": 3, "train.checks": 2})
    for name in ("checks", "check_steps"):
        with pytest.raises(
            RecipeError, match=rf"{name} needs held-out queries.*\. Set held_out to 0\.1, for example, or {name} to"
        ):
            load_recipe("demo", {f"train.{name}": 2, "train.held_out": 0})
    assert EarlyStopping(lambda student: 0.0, {2}, 3, tmp_path, (32, 300)).rows() == []


@pytest.mark.slow
def test_the_student_before_training_does_not_count_for_patience(stanford, inputs, tmp_path):
    found = run(stanford, inputs, tmp_path / "a", settings(patience=2), [0.5, 0.6, 0.7], base=0.9)
    assert [step for step, _ in found] == [2, 4, 6]


@pytest.mark.slow
def test_each_check_says_its_value_beside_that_before_training(stanford, inputs, tmp_path, capsys):
    run(stanford, inputs, tmp_path / "a", settings(), [0.5, 0.75, 0.625], base=0.25)
    said = capsys.readouterr().err
    for line in ("step 2: pair accuracy 0.5000 (0.2500 before training)", "step 6: pair accuracy 0.6250 (0.2500"):
        assert line in said
