"""A classifier teacher: fitted to labels, then asked like any other."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

from pdadapt.data.load import load_dataset
from pdadapt.data.run_file import read_run
from pdadapt.errors import DataError, ModelError, RecipeError
from pdadapt.pipeline import adapt
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe
from pdadapt.teachers.base import Pair, Point, scores_in_order
from pdadapt.teachers.cross_encoder import join_pair
from pdadapt.teachers.label_key import teacher_key
from pdadapt.teachers.load import Teachers
from pdadapt.training.reranker import make_examples, train_reranker


@pytest.fixture
def judged(beir, tmp_path):
    """The BEIR folder, every query to adapt on labeled with the documents of its own topic's words."""
    folder = tmp_path / "judged"
    (folder / "qrels").mkdir(parents=True)
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        (folder / name).write_bytes((beir / name).read_bytes())
    dataset = load_dataset(str(beir))
    rows = []
    for query_id, query in dataset.queries.items():
        for document in dataset.corpus:
            shared = len(set(query.split()) & set(document.contents.split()))
            if shared > 1:
                rows.append(f"{query_id}\t{document.doc_id}\t{min(shared - 1, 2)}")
    assert rows
    text = "query-id\tcorpus-id\tscore\n" + "\n".join(rows) + "\n"
    (folder / "qrels" / "train.tsv").write_text(text, encoding="utf-8")
    return folder


def recipe(tiny_recipe, encoder, task, **changes):
    sizes = {"steps": 400, "batch_size": 16, "learning_rate": 2e-3, "max_length": 64}
    settings = {"model": str(encoder), "task": task, **sizes, **changes}
    return load_recipe(str(tiny_recipe), {f"reranker.{key}": value for key, value in settings.items()})


def test_examples_set_better_grades_against_worse_ones(judged, tiny_recipe, encoder):
    dataset = load_dataset(str(judged))
    ranking = {query_id: [(d.doc_id, 0.0) for d in dataset.corpus] for query_id in dataset.train_qrels}
    for task in ("point", "pair"):
        settings = recipe(tiny_recipe, encoder, task).reranker
        examples = list(make_examples(ranking, dataset, settings, 1))
        assert examples == list(make_examples(ranking, dataset, settings, 1)) and examples
        for query_id, doc_ids, label in examples:
            grades = [dataset.train_qrels[query_id].get(doc_id, 0) for doc_id in doc_ids]
            assert (grades[0] > (grades[1] if task == "pair" else 0)) == bool(label)
        assert {label for _, _, label in examples} == {0.0, 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["point", "pair"])
def test_a_fitted_classifier_knows_its_examples_and_is_a_teacher(judged, tiny_recipe, encoder, tmp_path, task):
    settings = recipe(tiny_recipe, encoder, task)
    dataset = load_dataset(str(judged))
    folder = train_reranker(settings, dataset, tmp_path / "reranker", Progress())
    curve = [json.loads(row) for row in (tmp_path / "reranker/train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert curve[-1]["loss"] < 0.9 * curve[0]["loss"], curve

    given = {f"teacher.{task}.model": str(folder)}
    taught = load_recipe(str(tiny_recipe), given | {"teacher.dtype": "float32"})
    teacher = Teachers(taught.teacher, [task])(task)
    ranking = read_run(tmp_path / "reranker" / "candidates.run")
    examples = list(make_examples(ranking, dataset, settings.reranker, settings.seed))
    texts = [(dataset.queries[q], *(dataset.corpus[d].contents for d in docs)) for q, docs, _ in examples]
    if task == "point":
        found = scores_in_order(teacher.score_points, [Point(*text) for text in texts])
    else:
        found = scores_in_order(teacher.score_pairs, [Pair(*text) for text in texts])
    right = [(found[i] > 0) == bool(label) for i, (_, _, label) in enumerate(examples)]
    assert sum(right) >= 0.75 * len(right), sum(right) / len(right)

    other = "pair" if task == "point" else "point"
    message = "can judge single documents, but not pairs" if task == "point" else "judge pairs only"
    with pytest.raises(RecipeError, match=message):
        teacher_key(load_recipe(str(tiny_recipe), {f"teacher.{other}.model": str(folder)}).teacher, other)
    adapt(load_recipe(str(tiny_recipe), given | {"train.steps": 1}), dataset, tmp_path / "run", Progress())


def test_two_long_documents_are_cut_evenly_and_the_query_is_whole(cross_encoder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(cross_encoder)
    query, text = join_pair(tokenizer, Pair("wheel spoke", "rim hub " * 100, "pad"), 40)
    assert query == "wheel spoke"
    first, second = text.split(tokenizer.sep_token)
    assert second.strip() == "pad" and len(first.split()) > 25
    first, second = join_pair(tokenizer, Pair("wheel spoke", "rim " * 100, "pad " * 100), 40)[1].split(
        tokenizer.sep_token
    )
    assert abs(len(first.split()) - len(second.split())) <= 1
    assert len(tokenizer(*join_pair(tokenizer, Pair("wheel spoke", "rim " * 100, "pad " * 100), 40))["input_ids"]) <= 40


def test_train_reranker_without_judgments_is_refused(beir, tiny_recipe, encoder, tmp_path):
    with pytest.raises(DataError, match=r"Add qrels/train\.tsv"):
        train_reranker(recipe(tiny_recipe, encoder, "pair"), load_dataset(str(beir)), tmp_path / "out", Progress())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_train_reranker_refuses_unusable_judgments(judged, tiny_recipe, encoder, tmp_path):
    settings = recipe(tiny_recipe, encoder, "point")
    file = judged / "qrels" / "train.tsv"
    rows = file.read_text(encoding="utf-8")
    file.write_text(rows.replace("\td", "\tx", 1), encoding="utf-8")
    with pytest.raises(DataError, match=r"'x\d+'.* leave out --strict"):
        train_reranker(settings, load_dataset(str(judged), strict=True), tmp_path / "out", Progress())
    assert not (tmp_path / "out").exists()
    dataset = load_dataset(str(judged))
    every = [f"{next(iter(dataset.queries))}\t{document.doc_id}\t1" for document in dataset.corpus]
    file.write_text("\n".join(["query-id\tcorpus-id\tscore", *every]) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="labeled worse than another"):
        train_reranker(settings, load_dataset(str(judged)), tmp_path / "out", Progress())
    # a single pair has a single label, and is enough
    file.write_text("\n".join(["query-id\tcorpus-id\tscore", every[0]]) + "\n", encoding="utf-8")
    one = recipe(tiny_recipe, encoder, "pair", negatives=1, steps=1)
    assert train_reranker(one, load_dataset(str(judged)), tmp_path / "one", Progress()).exists()


@pytest.mark.slow
def test_a_gradient_that_is_no_number_says_what_to_change(judged, tiny_recipe, encoder, tmp_path):
    settings = recipe(tiny_recipe, encoder, "point", warmup=0, steps=4)
    settings.reranker.learning_rate = 1e30
    with pytest.raises(ModelError, match=r"not a finite number\. .*lower reranker\.learning_rate"):
        train_reranker(settings, load_dataset(str(judged)), tmp_path / "out", Progress())


@pytest.mark.slow
def test_when_memory_runs_out_it_goes_on_with_fewer_examples_at_once(
    judged, tiny_recipe, encoder, tmp_path, monkeypatch
):
    settings = recipe(tiny_recipe, encoder, "point", steps=8, save_steps=2, dropout=0)
    dataset = load_dataset(str(judged))
    train_reranker(settings, dataset, tmp_path / "roomy", Progress())
    forward, seen = BinaryCrossEntropyLoss.forward, []

    def full(self, inputs, labels, **more):
        seen.append(len(labels))
        if len(seen) > 4 and len(labels) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, inputs, labels, **more)

    monkeypatch.setattr(BinaryCrossEntropyLoss, "forward", full)
    train_reranker(settings, dataset, tmp_path / "tight", Progress())
    assert seen == [16] * 5 + [8] + [4] * 4 * 4, "it went on after the four steps that there was memory for"
    assert json.loads((tmp_path / "tight" / "memory.json").read_text(encoding="utf-8"))["train reranker"] == 4
    roomy, tight = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("roomy", "tight"))
    for name, weight in roomy.items():
        assert torch.allclose(tight[name], weight, atol=5e-3), name


@pytest.mark.subprocess
def test_train_reranker_command_names_the_option_for_its_model(judged, tiny_recipe, encoder, tmp_path):
    command = [sys.executable, "-m", "pdadapt", "train-reranker", "--corpus", judged, "--recipe", tiny_recipe]
    command += ["--model", encoder, "--set", "reranker.steps=1", "--out", tmp_path / "out"]
    process = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert f"--pair-teacher {tmp_path / 'out' / 'model'}" in process.stdout.replace("\n", "")


@pytest.mark.subprocess
def test_killed_while_saving_it_goes_on_to_the_same_bytes(judged, tiny_recipe, encoder, tmp_path, kill_while_saving):
    models = []
    for kills in (0, 3):
        out = tmp_path / str(kills)
        command = [sys.executable, "-m", "pdadapt", "train-reranker", "--corpus", judged, "--recipe", tiny_recipe]
        command += ["--model", encoder, "--out", out]
        for setting in ("steps=12", "save_steps=3"):
            command += ["--set", f"reranker.{setting}"]
        kill_while_saving(command, out / "trainer", kills)
        models.append((out / "model" / "model.safetensors").read_bytes())
    assert models[0] == models[1]
