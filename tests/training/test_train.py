import itertools
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pdadapt.data.load import load_dataset
from pdadapt.errors import ModelError, RecipeError
from pdadapt.labeling.bradley_terry import fit_strengths
from pdadapt.labeling.training_list import TrainingList
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import TrainSettings
from pdadapt.students.colbert import get_lengths, load_colbert
from pdadapt.students.load import load_student_as
from pdadapt.training.batch import ListCollator, kd_target
from pdadapt.training.losses import kd_loss, pair_loss
from pdadapt.training.pairdistill_loss import PairDistillLoss, document_chunks
from pdadapt.training.resume import last_complete, logging_steps
from pdadapt.training.smaller_chunks import queries_per_part
from pdadapt.training.trainer import count_steps, schedule, train

SETTINGS = TrainSettings(steps=6, batch_size=4, n_way=4, learning_rate=1e-3, save_steps=2)


@pytest.fixture
def data(beir):
    dataset = load_dataset(str(beir))
    lists = [
        TrainingList(
            query_id,
            [f"d{(start + 3 * i) % 20}" for i in range(4 if start % 3 else 3)],
            [2.0, 1.0, None, -1.0][: 4 if start % 3 else 3],
            [(0, 1, 1.5), (1, 2, -0.5)],
        )
        for start, query_id in enumerate(dataset.queries)
    ]
    return dataset, lists


def collate(model, dataset, lists):
    """What the Trainer hands to the loss: [query features, document features], labels."""
    batch = ListCollator(model, dataset.corpus, dataset.queries, lists, TrainSettings())(
        [{"list": i} for i in range(len(lists))]
    )
    features = [
        {key.removeprefix(f"{task}_"): value for key, value in batch.items() if key.startswith(f"{task}_")}
        for task in ("query", "document")
    ]
    return features, batch["label"]


def test_the_target_of_kd_may_be_the_strengths_of_pairs_and_points():
    entry = TrainingList("q", ["a", "b", "c", "d"], [2.0, 1.0, None, None], [(0, 1, -4.0), (1, 2, 1.0)])
    assert kd_target(entry, TrainSettings()) == entry.points
    settings = TrainSettings(kd_target="strengths", temperature=0.5, prior_precision=0.25)
    found = kd_target(entry, settings)
    strengths = fit_strengths(entry.points, entry.pairs, 0.5, 0.25).strengths
    assert found[:3] == pytest.approx(0.5 * strengths[:3]) and found[3] is None, "of the last nothing is known"
    assert found[1] > found[0], "the pair outweighs the points"
    without = TrainingList("q", ["a", "b"], [2.0, 1.0], [])
    assert kd_target(without, settings) == pytest.approx(without.points)


def test_the_batch_holds_each_document_once_and_the_loss_equals_encoding_one_by_one(data, stanford):
    dataset, lists = data
    model = load_colbert(str(stanford), document_length=180).eval()
    features, labels = collate(model, dataset, lists[:4])
    distinct = {doc_id for entry in lists[:4] for doc_id in entry.doc_ids}
    assert len(features[1]["input_ids"]) == len(distinct) < sum(len(entry.doc_ids) for entry in lists[:4])
    terms = PairDistillLoss(model, SETTINGS)(features, labels)

    scores = torch.zeros(4, 4)
    for row, entry in enumerate(lists[:4]):
        query = model.encode_query([dataset.queries[entry.query_id]])
        for column, doc_id in enumerate(entry.doc_ids):
            document = model.encode_document([dataset.corpus[doc_id].contents])
            scores[row, column] = model.similarity(query, document)[0, 0]
    points = torch.tensor(
        [[float("nan") if p is None else p for p in (*entry.points, None)][:4] for entry in lists[:4]]
    )
    pairs = torch.tensor([[row, 0, 1] for row in range(4)] + [[row, 1, 2] for row in range(4)])
    log_odds = torch.tensor([1.5] * 4 + [-0.5] * 4)
    assert terms["kd"].item() == pytest.approx(kd_loss(scores, points).item(), rel=1e-3)
    assert terms["pair"].item() == pytest.approx(3 * pair_loss(scores, pairs, log_odds).item(), rel=1e-3)


@pytest.mark.parametrize(("own", "others"), [(True, True), (True, False), (False, True)])
def test_a_labeled_document_is_set_against_its_own_list_the_others_or_both(data, stanford, own, others):
    dataset, lists = data
    lists = [entry._replace(relevant=entry.doc_ids[1:2]) for entry in lists[:3]] + lists[3:4]  # the last has no label
    model = load_colbert(str(stanford), document_length=180).eval()
    settings = SETTINGS.model_copy(
        update={"lambda_cl": 2.0, "lambda_kd": 0.0, "lambda_pair": 0.0}
        | {"own_negatives": own, "in_batch_negatives": others}
    )
    terms = PairDistillLoss(model, settings)(*collate(model, dataset, lists))

    batch = dict.fromkeys(doc_id for entry in lists for doc_id in entry.doc_ids)
    expected = []
    assert {doc_id for entry in lists[1:] for doc_id in entry.doc_ids} & set(lists[0].doc_ids), "some are on two lists"
    for entry in lists[:3]:
        against = [doc_id for doc_id in batch if (own if doc_id in entry.doc_ids else others)]
        against = list(dict.fromkeys([*against, entry.doc_ids[1]]))
        documents = model.encode_document([dataset.corpus[doc_id].contents for doc_id in against])
        scores = model.similarity(model.encode_query([dataset.queries[entry.query_id]]), documents)[0]
        expected.append(-scores.log_softmax(0)[against.index(entry.doc_ids[1])].item())
    assert set(terms) == {"cl"}
    assert terms["cl"].item() == pytest.approx(2 * sum(expected) / 3, rel=1e-3)


@pytest.mark.slow
def test_training_lowers_the_loss_and_leaves_a_checkpoint_that_loads(data, stanford, tmp_path):
    dataset, lists = data
    settings = SETTINGS.model_copy(update={"steps": 30, "save_steps": 100})
    model = load_colbert(str(stanford))
    train(model, lists, dataset.corpus, dataset.queries, settings, 1, tmp_path, Progress())
    curve = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {"loss", "kd", "pair", "step"} <= set(curve[-1])
    assert curve[-1]["step"] == 30
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]
    again = load_colbert(str(tmp_path / "checkpoint"))
    torch.testing.assert_close(again.encode_query(["spoke"])[0], model.eval().encode_query(["spoke"])[0])


@pytest.mark.slow
def test_chunks_and_the_gradient_cache_change_nothing(data, stanford):
    dataset, lists = data

    def gradient(dropout, **changes):
        model = load_colbert(str(stanford)).train(dropout)
        features, labels = collate(model, dataset, lists[:4])
        torch.manual_seed(0)
        sum(PairDistillLoss(model, SETTINGS.model_copy(update=changes))(features, labels).values()).backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])

    def difference(found, expected):
        return ((found - expected).norm() / expected.norm()).item()

    whole = gradient(False)
    assert difference(gradient(False, chunk_tokens=16), whole) < 1e-5
    # with dropout, the second computation of a chunk drops what the first did
    kept = gradient(True, chunk_tokens=16)
    assert difference(gradient(True, chunk_tokens=16, gradient_cache=True), kept) < 1e-6
    assert difference(kept, whole) > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_batch_taken_in_parts_teaches_the_same(data, stanford, tmp_path, reduction):
    """Although the parts have different numbers of pairs, points and relevant documents."""
    dataset, lists = data
    lists = [
        entry._replace(
            pairs=entry.pairs[: i % 3], relevant=entry.doc_ids[: i % 2], points=[None] * len(p) if i == 3 else p
        )
        for i, (entry, p) in enumerate((entry, entry.points) for entry in lists)
    ]
    changes = {"lambda_cl": 1.0, "in_batch_negatives": False, "pair_reduction": reduction, "dropout": 0}
    weights = []
    for parts in (1, 4):
        tokens = 4 * SETTINGS.n_way * SETTINGS.document_length // parts
        settings = SETTINGS.model_copy(update=changes | {"steps": 3, "chunk_tokens": tokens})
        assert queries_per_part(settings) == 4 // parts
        model = load_colbert(str(stanford))
        train(model, lists, dataset.corpus, dataset.queries, settings, 1, tmp_path / str(parts), Progress())
        weights.append({name: weight.clone() for name, weight in model.named_parameters()})
    for name, expected in weights[0].items():
        if not name.endswith("key.bias"):  # its gradient is rounding noise, of which Adam makes whole steps
            torch.testing.assert_close(weights[1][name], expected, rtol=0, atol=1e-5, msg=name)


def test_a_part_holds_whole_queries_within_the_tokens_unless_in_batch_negatives_tie_them():
    def at_once(**changes):
        return queries_per_part(TrainSettings(batch_size=12, n_way=10, document_length=100, **changes))

    assert at_once(chunk_tokens=5_000) == 4
    assert at_once(chunk_tokens=999) == 1
    assert at_once(chunk_tokens=50_000) == 12
    assert at_once(chunk_tokens=999, lambda_cl=1.0) == 12
    assert at_once(chunk_tokens=5_000, lambda_cl=1.0, in_batch_negatives=False) == 4


@pytest.mark.parametrize("most", [1, 10, 24, 1000])
def test_chunks_hold_each_row_once_within_the_tokens(most):
    lengths = [3, 9, 1, 12, 12, 5]
    order = sorted(range(6), key=lambda row: -lengths[row])
    found = list(document_chunks(order, lengths, most))
    assert [row for rows in found for row in rows] == order
    assert all(len(rows) == 1 or len(rows) * lengths[rows[0]] <= most for rows in found)
    for rows, following in itertools.pairwise(found):
        assert (len(rows) + 1) * lengths[rows[0]] > most, (rows, following)


def test_only_the_wanted_losses_are_computed(data, stanford):
    dataset, lists = data
    model = load_colbert(str(stanford))
    settings = SETTINGS.model_copy(update={"lambda_pair": 0.0})
    features, labels = collate(model, dataset, lists[:2])
    assert set(PairDistillLoss(model, settings)(features, labels)) == {"kd"}


class Killed(Exception):
    pass


class KilledAt(Progress):
    """A live view that ends the process' work, as a kill would, after so many training steps."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def task(self, name, total, unit):
        outer = super().task(name, total, unit)
        allowed = self.steps

        class Counting:
            def __enter__(self):
                inner = outer.__enter__()
                done = 0

                def advance(units, note="", earlier=False):
                    nonlocal done
                    done += units
                    if done > allowed:
                        raise Killed
                    inner(units, note, earlier)

                return advance

            def __exit__(self, *error):
                return outer.__exit__(*error)

        return Counting()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["colbert", "dense"])
def test_training_stopped_in_the_middle_goes_on_to_the_same_bytes(data, stanford, encoder, tmp_path, kind):
    dataset, lists = data
    start = {"colbert": stanford, "dense": encoder}[kind]

    def run(folder, progress):
        model = load_student_as(str(start), kind)
        train(model, lists, dataset.corpus, dataset.queries, SETTINGS, 1, folder, progress)
        return (folder / "checkpoint" / "model.safetensors").read_bytes()

    whole = run(tmp_path / "whole", Progress())
    assert whole == run(tmp_path / "again", Progress())
    with pytest.raises(Killed):
        run(tmp_path / "stopped", KilledAt(4))
    assert (tmp_path / "stopped" / "trainer" / "checkpoint-4").is_dir()
    assert not (tmp_path / "stopped" / "checkpoint").exists()
    (tmp_path / "stopped" / "trainer" / "checkpoint-6").mkdir()  # as a kill in the middle of writing leaves one
    (tmp_path / "stopped" / "trainer" / "checkpoint-2" / "model.safetensors").unlink()  # and of removing one
    assert run(tmp_path / "stopped", Progress()) == whole
    curves = [(tmp_path / name / "train.jsonl").read_text(encoding="utf-8") for name in ("whole", "stopped")]
    assert curves[0] == curves[1]


def test_only_the_newest_whole_state_is_kept(tmp_path):
    for step, whole in ((2, True), (10, True), (4, True), (12, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if whole:
            (tmp_path / f"checkpoint-{step}" / "complete").touch()
    assert last_complete(tmp_path) == str(tmp_path / "checkpoint-10")
    assert list(tmp_path.iterdir()) == [tmp_path / "checkpoint-10"]
    assert last_complete(tmp_path / "nothing") is None


def test_the_loss_is_logged_at_every_saved_state():
    assert [logging_steps(*sizes) for sizes in ((60, 5), (60, 6), (1000, 500), (10, 4))] == [1, 3, 10, 1]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["gradient_checkpointing", "compile"])
def test_checkpointing_and_compiling_learn_the_same(data, stanford, tmp_path, way):
    dataset, lists = data
    weights = []
    for chosen in (False, True):
        settings = SETTINGS.model_copy(update={"steps": 2, "dropout": 0, way: chosen})
        model = load_colbert(str(stanford))
        train(model, lists, dataset.corpus, dataset.queries, settings, 1, tmp_path / str(chosen), Progress())
        weights.append(load_file(tmp_path / str(chosen) / "checkpoint" / "model.safetensors"))
    for name, expected in weights[0].items():
        if not name.endswith("key.bias"):  # its gradient is rounding noise, of which Adam makes whole steps
            torch.testing.assert_close(weights[1][name], expected, rtol=0, atol=1e-5, msg=name)


@pytest.mark.subprocess
def test_killed_while_saving_it_goes_on_to_the_same_bytes(stanford, beir, tmp_path, kill_while_saving):
    script = Path(__file__).parents[1] / "training_script.py"
    checkpoints = []
    for kills in (0, 3):
        out = tmp_path / str(kills)
        changes = json.dumps({"steps": 12, "save_steps": 3, "dropout": 0.1, "lambda_cl": 1.0})
        kill_while_saving([sys.executable, script, stanford, beir, out, changes], out / "trainer", kills)
        checkpoints.append((out / "checkpoint" / "model.safetensors").read_bytes())
    assert checkpoints[0] == checkpoints[1]


@pytest.mark.slow
def test_training_has_its_own_lengths_and_the_checkpoint_keeps_the_others(data, stanford, tmp_path, monkeypatch):
    dataset, lists = data
    seen = []
    original = ListCollator.__call__

    def watch(self, rows):
        batch = original(self, rows)
        seen.append((batch["query_input_ids"].shape[1], batch["document_input_ids"].shape[1]))
        return batch

    monkeypatch.setattr(ListCollator, "__call__", watch)
    settings = SETTINGS.model_copy(update={"query_length": 40, "document_length": 9, "steps": 1})
    model = load_colbert(str(stanford), query_length=64, document_length=100)
    train(model, lists, dataset.corpus, dataset.queries, settings, 1, tmp_path, Progress())
    assert set(seen) == {(40, 9)}
    assert get_lengths(load_colbert(str(tmp_path / "checkpoint"))) == (64, 100)


@pytest.mark.slow
def test_without_dropout_the_first_loss_is_that_of_the_model_as_it_evaluates(data, stanford, tmp_path):
    dataset, lists = data

    def first_loss(dropout):
        settings = SETTINGS.model_copy(update={"steps": 1, "batch_size": len(lists), "dropout": dropout})
        model = load_colbert(str(stanford))
        train(model, lists, dataset.corpus, dataset.queries, settings, 1, tmp_path / str(dropout), Progress())
        return json.loads((tmp_path / str(dropout) / "train.jsonl").read_text(encoding="utf-8"))["loss"]

    model = load_colbert(str(stanford)).eval()
    expected = sum(PairDistillLoss(model, SETTINGS)(*collate(model, dataset, lists)).values()).item()
    assert first_loss(0.0) == pytest.approx(expected, rel=1e-4)
    assert first_loss(None) != pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_a_gradient_that_is_no_number_stops_the_run_and_harms_nothing(data, stanford, tmp_path):
    dataset, lists = data
    settings = SETTINGS.model_copy(update={"learning_rate": 1e30, "warmup": 0.0, "save_steps": 1})
    with pytest.raises(ModelError, match=r"stopped at step 2.*\(queries q\d+, q\d+, q\d+, q\d+\).*lower train"):
        train(load_colbert(str(stanford)), lists, dataset.corpus, dataset.queries, settings, 1, tmp_path, Progress())
    assert not (tmp_path / "checkpoint").exists()
    assert last_complete(tmp_path / "trainer") == str(tmp_path / "trainer" / "checkpoint-1")


@pytest.mark.slow
def test_the_curve_goes_to_tensorboard_too(data, stanford, tmp_path):
    dataset, lists = data
    settings = SETTINGS.model_copy(update={"report_to": ("tensorboard",)})
    train(load_colbert(str(stanford)), lists, dataset.corpus, dataset.queries, settings, 1, tmp_path, Progress())
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    expected = ("loss", "kd", "pair", "learning_rate", "grad_norm", "examples_per_second")
    assert {f"train/{name}" for name in expected} <= set(events.Tags()["scalars"])


def test_no_more_passes_are_made_than_max_epochs_whatever_else_is_asked():
    def steps(lists, **changes):
        return count_steps(TrainSettings(batch_size=32, **changes), lists)

    assert steps(180, steps=30_000, max_epochs=20) == 113 == -(-20 * 180 // 32)
    assert steps(48_000, steps=30_000, max_epochs=20) == steps(10**6, steps=30_000, max_epochs=20) == 30_000
    assert steps(180, steps=30_000) == 30_000
    assert steps(180, epochs=50, max_epochs=2) == steps(180, epochs=2) == 12
    assert steps(180, epochs=2, max_epochs=50) == 12
    assert steps(3, steps=5, max_epochs=0.5) == 1


def test_every_pass_goes_over_all_lists_whatever_the_number_of_processes():
    order = schedule(5, 12, 7)
    assert len(order) == 12
    assert sorted(order[:5]) == sorted(order[5:10]) == list(range(5))
    assert order[:5] != order[5:10]
    assert schedule(5, 12, 7) == order != schedule(5, 12, 8)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [1, 0])
def test_layers_trains_only_the_top_layers_and_the_projection(encoder, data, tmp_path, layers):
    dataset, lists = data
    model = load_colbert(str(encoder), projection=8, sample_texts=[document.contents for document in dataset.corpus])
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    settings = SETTINGS.model_copy(update={"layers": layers})
    train(model, lists, dataset.corpus, dataset.queries, settings, 0, tmp_path, Progress())
    moved = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    names = {name.partition("layer.")[2].partition(".")[0] or name for name in moved}
    count = len(model[0].auto_model.encoder.layer)
    assert names == {"1.linear.weight", *map(str, range(count - layers, count))}


def test_layers_is_refused_if_the_encoder_has_fewer(encoder, data, tmp_path):
    dataset, lists = data
    settings = SETTINGS.model_copy(update={"layers": 99})
    with pytest.raises(RecipeError, match=r"exceeds the \d+ layers"):
        train(load_colbert(str(encoder)), lists, dataset.corpus, dataset.queries, settings, 0, tmp_path, Progress())
