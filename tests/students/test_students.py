import json
import os
import subprocess

import numpy as np
import pytest
import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules.dense import Dense
from transformers import AutoModel, AutoTokenizer

from pdadapt.errors import ModelError
from pdadapt.models.source import is_colbert, resolve_model
from pdadapt.students.colbert import load_colbert
from pdadapt.students.pylate import save_colbert

QUERY, DOCUMENT = "spoke tension", "rim spoke, hub. pad rotor!"


def reference_colbert(folder):
    """Encode as the ColBERT paper says (section 3.2), by hand: markers, [MASK] expansion, linear, no punctuation."""
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    from transformers import BertConfig, BertModel

    bert = BertModel(BertConfig.from_dict(config), add_pooling_layer=False).eval()
    bert.load_state_dict({name[5:]: tensor for name, tensor in weights.items() if name.startswith("bert.")})
    special = tokenizer.convert_tokens_to_ids

    @torch.no_grad()
    def encode(text, marker, length=None):
        ids = tokenizer.encode(text, add_special_tokens=False)
        ids = [special("[CLS]"), special(marker), *ids, special("[SEP]")]
        real = len(ids)
        if length:
            ids += [special("[MASK]")] * (length - len(ids))
        mask = torch.tensor([[1] * real + [0] * (len(ids) - real)])
        hidden = bert(input_ids=torch.tensor([ids]), attention_mask=mask).last_hidden_state[0]
        tokens = torch.nn.functional.normalize(hidden @ weights["linear.weight"].T, dim=-1)
        if length:
            return tokens
        keep = [token not in {special(mark) for mark in ".,:;?!-()"} for token in ids]
        return tokens[torch.tensor(keep)]

    return encode(QUERY, "[unused0]", 32), encode(DOCUMENT, "[unused1]")


def test_a_stanford_checkpoint_encodes_as_the_colbert_paper_says(stanford):
    assert is_colbert(resolve_model(str(stanford)))
    model = load_colbert(str(stanford), query_length=32, document_length=180)
    query, document = reference_colbert(stanford)
    torch.testing.assert_close(model.encode_query([QUERY])[0].cpu(), query, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.encode_document([DOCUMENT])[0].cpu(), document, atol=1e-5, rtol=1e-4)


def test_lengths_can_be_changed_for_inference(stanford):
    model = load_colbert(str(stanford), query_length=48, document_length=10)
    assert model.encode_query([QUERY])[0].shape == (48, 16)
    assert len(model.encode_document(["rim " * 100])[0]) == 10
    with pytest.raises(ModelError, match="reads at most 512 tokens"):
        load_colbert(str(stanford), document_length=4000)


@pytest.fixture(params=["stanford", "plain", "projected"])
def student(request, stanford, encoder):
    if request.param == "stanford":
        return load_colbert(str(stanford), document_length=180)
    return load_colbert(str(encoder), projection=8 * (request.param == "projected"), sample_texts=[DOCUMENT, QUERY] * 4)


def test_a_saved_checkpoint_loads_again_to_the_same_vectors(student, tmp_path):
    save_colbert(student, tmp_path / "saved")
    assert not list((tmp_path / "saved").rglob("*.bin"))
    for again in (load_colbert(str(tmp_path / "saved")), MultiVectorEncoder(str(tmp_path / "saved"))):
        torch.testing.assert_close(again.encode_query([QUERY])[0], student.encode_query([QUERY])[0])
        torch.testing.assert_close(again.encode_document([DOCUMENT])[0], student.encode_document([DOCUMENT])[0])


@pytest.mark.parametrize(
    "options",
    [
        {"bias": True},
        {"activation_function": torch.nn.Tanh()},
        {"use_residual": True},
        {"out_features": 32, "use_residual": True, "bias": False},
    ],
    ids=str,
)
def test_a_projection_of_any_kind_loads_again_to_the_same_vectors(encoder, tmp_path, options):
    transformer, *rest = load_colbert(str(encoder))
    sizes = {"in_features": 32, "out_features": 8, "activation_function": torch.nn.Identity()}
    torch.manual_seed(0)
    projection = Dense(**sizes | options, module_input_name="token_embeddings")
    model = MultiVectorEncoder(modules=[transformer, projection, *rest])
    save_colbert(model, tmp_path / "saved")
    again = load_colbert(str(tmp_path / "saved"))
    torch.testing.assert_close(again.encode_query([QUERY])[0], model.encode_query([QUERY])[0])
    torch.testing.assert_close(again.encode_document([DOCUMENT])[0], model.encode_document([DOCUMENT])[0])


@pytest.mark.subprocess
@pytest.mark.skipif("PYLATE_PYTHON" not in os.environ, reason="PYLATE_PYTHON does not name a Python with PyLate")
def test_pylate_loads_a_checkpoint_to_the_same_vectors(student, tmp_path):
    """PyLate 1.6 pins sentence-transformers 5, so it runs in an environment of its own."""
    save_colbert(student, tmp_path / "saved")
    script = f"""
import numpy
from pylate.models import ColBERT
model = ColBERT({str(tmp_path / "saved")!r}, device="cpu")
numpy.savez({str(tmp_path / "out.npz")!r}, query=model.encode([{QUERY!r}], is_query=True)[0],
            document=model.encode([{DOCUMENT!r}], is_query=False)[0])
"""
    subprocess.run([os.environ["PYLATE_PYTHON"], "-c", script], check=True)
    found = np.load(tmp_path / "out.npz")
    np.testing.assert_allclose(found["query"], student.encode_query([QUERY])[0].cpu(), atol=1e-5)
    np.testing.assert_allclose(found["document"], student.encode_document([DOCUMENT])[0].cpu(), atol=1e-5)


def test_a_plain_encoder_starts_with_its_own_token_embeddings(encoder):
    assert not is_colbert(resolve_model(str(encoder)))
    model = load_colbert(str(encoder))
    tokenizer, bert = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    with torch.no_grad():
        hidden = bert(**tokenizer(QUERY, return_tensors="pt")).last_hidden_state[0]
    expected = torch.nn.functional.normalize(hidden, dim=-1)
    torch.testing.assert_close(model.encode_query([QUERY])[0].cpu(), expected, atol=1e-5, rtol=1e-4)


def test_a_pca_projection_keeps_dot_products_better_than_chance_and_exactly_at_full_width(encoder):
    passages = [DOCUMENT, QUERY, "chain cassette hanger", "tube valve bead patch"]
    plain = load_colbert(str(encoder)).encode_document(passages)
    full = load_colbert(str(encoder), projection=32, sample_texts=passages).encode_document(passages)
    half = load_colbert(str(encoder), projection=16, sample_texts=passages).encode_document(passages)
    torch.testing.assert_close(full[0] @ full[1].T, plain[0] @ plain[1].T, atol=1e-4, rtol=1e-3)
    assert half[0].shape[1] == 16
    error = (half[0] @ half[1].T - plain[0] @ plain[1].T).abs().mean()
    assert error < 0.1 * (plain[0] @ plain[1].T).abs().mean()


def test_projection_without_a_corpus_or_too_wide_is_refused(encoder):
    with pytest.raises(ModelError, match="must be fitted to a corpus"):
        load_colbert(str(encoder), projection=8)
    with pytest.raises(ModelError, match="exceeds the encoder's 32"):
        load_colbert(str(encoder), projection=64, sample_texts=[DOCUMENT])


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_colbert(str(tmp_path))


def test_bfloat16_student_gives_float32_vectors(stanford):
    exact = load_colbert(str(stanford), document_length=180).encode_document([DOCUMENT])[0]
    model = load_colbert(str(stanford), document_length=180, dtype="bfloat16")
    found = model.encode_document([DOCUMENT])[0]
    assert found.dtype == torch.float32 and {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert 0 < (found - exact).abs().max() < 0.05
    assert found.norm(dim=1).tolist() == pytest.approx([1.0] * len(found), abs=1e-5)
