"""With train.layers=0 the encoder reads each text once, and the training is the same."""

import pytest
import torch
from safetensors.torch import load_file

from pdadapt.data.load import load_dataset
from pdadapt.labeling.training_list import TrainingList
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import TrainSettings
from pdadapt.students.colbert import load_colbert
from pdadapt.training import trainer
from pdadapt.training.batch import ListCollator
from pdadapt.training.pairdistill_loss import PairDistillLoss
from pdadapt.training.stored_tokens import StoredTokens, after_encoder

SETTINGS = TrainSettings(steps=6, batch_size=4, n_way=4, learning_rate=1e-2, save_steps=2, layers=0)


@pytest.fixture
def data(beir):
    dataset = load_dataset(str(beir))
    lists = [
        TrainingList(query_id, [f"d{(start + 3 * i) % 20}" for i in range(4)], [2.0, 1.0, 0.0, -1.0], [])
        for start, query_id in enumerate(dataset.queries)
    ]
    return dataset, lists


@pytest.fixture(params=["plain encoder", "query expansion"])
def student(request, encoder, stanford):
    """With a projection, and with padding that a query's expansion fills."""
    if request.param == "query expansion":
        return load_colbert(str(stanford))
    return load_colbert(str(encoder), projection=8, sample_texts=["rim spoke hub nipple tension", "pad rotor lever"])


@pytest.mark.parametrize("task", ["query", "document"])
def test_stored_tokens_give_the_embeddings_of_the_model(student, tmp_path, task):
    texts = ["rim, spoke", "pad rotor lever caliper bleed squeal", "true", "rim, spoke"]
    stored, counted = StoredTokens(student, tmp_path / "tokens"), []
    stored.add(task, texts, counted.append)
    assert sum(counted) == 3
    stored.add(task, texts, counted.append)
    assert sum(counted) == 3, "stored texts are not encoded again"
    with torch.inference_mode():
        found = after_encoder(student, stored.features(task, texts), task)
        wanted = student(student.preprocess(texts, prompt=student.prompts.get(task), task=task), task=task)
    for row in range(len(texts)):
        own = found["token_embeddings"][row][found["attention_mask"][row].bool()]
        torch.testing.assert_close(
            own, wanted["token_embeddings"][row][wanted["attention_mask"][row].bool()], atol=2e-3, rtol=0
        )


def test_loss_and_gradient_equal_those_with_the_encoder(student, data, tmp_path):
    dataset, lists = data
    student.eval()
    trainer.freeze_below(student, 0)
    stored = StoredTokens(student, tmp_path / "tokens")
    stored.add("query", dataset.queries.values(), lambda _: None)
    stored.add("document", (document.contents for document in dataset.corpus), lambda _: None)
    found = []
    for source in (stored, None):
        batch = ListCollator(student, dataset.corpus, dataset.queries, lists, SETTINGS, source)([{"list": 0}])
        features = [
            {key.removeprefix(f"{task}_"): value for key, value in batch.items() if key.startswith(f"{task}_")}
            for task in ("query", "document")
        ]
        loss = PairDistillLoss(student, SETTINGS)(features, batch["label"])["kd"]
        found.append([loss, *torch.autograd.grad(loss, [w for w in student.parameters() if w.requires_grad])])
    torch.testing.assert_close(*found, atol=5e-3, rtol=5e-3)


@pytest.mark.slow
def test_a_training_of_the_projection_encodes_each_text_once_and_resumes_to_the_same_bytes(data, encoder, tmp_path):
    class Killed(BaseException):
        pass

    dataset, lists = data
    texts = []

    def train(folder, kill_at=None):
        model = load_colbert(str(encoder), projection=8, sample_texts=["rim spoke hub", "pad rotor lever"])
        model[0].register_forward_pre_hook(lambda _, inputs: texts.append(len(inputs[0]["input_ids"])))
        steps = iter(range(99))

        def step(_, inputs):
            if next(steps) == kill_at:
                raise Killed

        model[1].register_forward_pre_hook(step)
        trainer.train(model, lists, dataset.corpus, dataset.queries, SETTINGS, 0, folder, Progress())
        return load_file(folder / "checkpoint" / "1_Dense" / "model.safetensors")["linear.weight"]

    whole = train(tmp_path / "whole")
    assert texts[:2] == [len(lists), 20], "all queries and all documents, once"
    assert max(texts[2:]) <= 3, "then only the example of the model card that comes with a saved state"
    with pytest.raises(Killed):
        train(tmp_path / "killed", kill_at=9)
    assert (tmp_path / "killed" / "trainer" / "checkpoint-2").exists()
    assert torch.equal(train(tmp_path / "killed"), whole)
