"""Checks during training: the best state is kept, and training stops when nothing better comes."""

import json

import pytest

from pdadapt.checks import Checks
from pdadapt.corpus import load_dataset
from pdadapt.errors import RecipeError
from pdadapt.progress import Progress
from pdadapt.recipe import TrainSettings, load_recipe
from pdadapt.students.colbert import get_lengths, load_colbert
from pdadapt.train import train
from pdadapt.training_lists import TrainingList


def settings(**more):
    values = {"batch_size": 2, "n_way": 3, "steps": 6, "save_steps": 1, "learning_rate": 1e-3, "check_steps": 2}
    return TrainSettings(**values | {"document_length": 64} | more)


@pytest.fixture
def inputs(beir):
    dataset = load_dataset(str(beir))
    doc_ids = [document.doc_id for document in dataset.corpus][:3]
    lists = [TrainingList(query_id, doc_ids, [2.0, 1.0, 0.0], []) for query_id in list(dataset.queries)[:4]]
    return lists, dataset.corpus, dataset.queries


def run(stanford, inputs, folder, chosen, values):
    """Train, with a measure that gives these values in turn; (steps checked, their values)."""
    told = iter(values)
    lengths = []

    def measure(student):
        lengths.append(get_lengths(student))
        student.eval()
        return next(told)

    train(load_colbert(str(stanford)), *inputs, chosen, 1, folder, Progress(), measure)
    assert set(lengths) == {get_lengths(load_colbert(str(stanford)))}, "measured with the lengths of the index"
    rows = [json.loads(line) for line in (folder / "checks.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(row["step"], row["value"]) for row in rows]


def weights(folder):
    return (folder / "checkpoint" / "model.safetensors").read_bytes()


def test_the_best_state_becomes_the_checkpoint(stanford, inputs, tmp_path):
    assert run(stanford, inputs, tmp_path / "a", settings(), [0.5, 0.7, 0.6]) == [(2, 0.5), (4, 0.7), (6, 0.6)]
    run(stanford, inputs, tmp_path / "b", settings(), [0.5, 0.6, 0.7])
    run(stanford, inputs, tmp_path / "plain", settings(check_steps=4, patience=1), [0.5, 0.6])
    assert weights(tmp_path / "b") == weights(tmp_path / "plain") != weights(tmp_path / "a")
    assert not (tmp_path / "a" / "best").exists()


def test_training_stops_when_checks_bring_nothing_better(stanford, inputs, tmp_path):
    found = run(stanford, inputs, tmp_path / "a", settings(steps=40, patience=2), [0.5, 0.7, 0.6, 0.7])
    assert [step for step, _ in found] == [2, 4, 6, 8]
    run(stanford, inputs, tmp_path / "b", settings(steps=40, patience=1), [0.5, 0.7, 0.6])
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


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


def test_checks_want_saved_states_and_queries_held_out(tmp_path):
    with pytest.raises(RecipeError, match="3 is no multiple of save_steps, 2"):
        load_recipe("demo", {"train.check_steps": 3, "train.save_steps": 2})
    with pytest.raises(RecipeError, match="set held_out"):
        load_recipe("demo", {"train.check_steps": 2, "train.save_steps": 2, "train.held_out": 0})
    assert Checks(lambda student: 0.0, 2, 3, tmp_path, (32, 300)).rows() == []
