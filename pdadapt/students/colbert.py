"""The ColBERT student: sentence-transformers' MultiVectorEncoder, from a ColBERT checkpoint or a plain encoder.

A plain encoder starts with its own token embeddings. An optional projection is a PCA of the corpus' token embeddings
and never random, so the untrained student already retrieves well.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.base.modules.dense import Dense
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

from pdadapt.errors import ModelError
from pdadapt.models.device import set_compute_dtype
from pdadapt.models.encoders import length_limit, prepare_encoder
from pdadapt.models.outline import part_options
from pdadapt.models.source import ModelSource, is_colbert, resolve_model, translate_errors

PROJECTION_SAMPLE = 1_000  # the token embeddings of so many documents are enough to fit a projection


def load_colbert(
    name: str,
    query_length: int | None = None,
    document_length: int | None = None,
    projection: int = 0,
    sample_texts: Sequence[str] = (),
    dtype: str = "float32",
) -> MultiVectorEncoder:
    """Load a ColBERT student, ready to encode and to train.

    name: a model name (see models/source.py).
    query_length, document_length: tokens kept. None means what the checkpoint says, or 32 and 300 for a plain encoder
    that reads as many.
    projection: the dimensions of a projection for a plain encoder, fitted to the token embeddings of `sample_texts`;
    0 means none.
    dtype: the dtype of the encoder's multiplications (see models/device.py). Weights and embeddings are float32.
    Raises ModelError if the checkpoint cannot be loaded as a student.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)  # weights that a checkpoint lacks (BERT's unused pooler) are the same every time
        return _load(name, query_length, document_length, projection, sample_texts, dtype)


def _load(
    name: str,
    query_length: int | None,
    document_length: int | None,
    projection: int,
    sample_texts: Sequence[str],
    dtype: str,
) -> MultiVectorEncoder:
    source = resolve_model(name)
    weights = {"use_safetensors": True, "dtype": torch.float32}  # training needs float32 weights
    source.check()
    with translate_errors(f"Student {name!r} does not load"):
        if is_colbert(source):
            model = MultiVectorEncoder(source.place, revision=source.commit, model_kwargs=weights)
            settle_student(model, source)
            set_lengths(model, query_length, document_length)
            set_compute_dtype(model, dtype)
            return model
        options = part_options(source)
        encoder = Transformer(
            source.place,
            model_kwargs=weights | options,
            processor_kwargs=dict(options),
            config_kwargs=dict(options),
        )
        unknown = (None, encoder.tokenizer.unk_token_id)
        skipped = [mark for mark in string.punctuation if encoder.tokenizer.convert_tokens_to_ids(mark) not in unknown]
        tail = [MultiVectorMask(skiplist_words=skipped), Normalize(module_input_name="token_embeddings")]
        model = MultiVectorEncoder(modules=[encoder, *tail])
    settle_student(model, source)
    limit = length_limit(model)
    set_lengths(model, query_length or min(32, limit), document_length or min(300, limit))
    set_compute_dtype(model, dtype)
    if projection:
        model = MultiVectorEncoder(modules=[encoder, fit_projection(model, sample_texts, projection), *tail])
    return model


def set_lengths(model: MultiVectorEncoder, query_length: int | None, document_length: int | None) -> None:
    """Set the tokens kept of queries and of documents. None leaves a length unchanged.

    Queries of a checkpoint with query expansion are padded with [MASK] to the query length. Raises ModelError if the
    encoder reads fewer tokens.
    """
    encoder: Any = model[0]
    check_lengths(length_limit(model), query_length, document_length)
    expansion = encoder.query_expansion
    if query_length and expansion is not None:
        encoder.query_expansion = {**expansion, "length": query_length}
    elif query_length:
        encoder.query_length = query_length
    if document_length:
        encoder.document_length = document_length


def check_lengths(limit: int, *lengths: int | None) -> None:
    """Raises ModelError if a length exceeds the number of tokens that the student reads."""
    if max(length or 0 for length in lengths) > limit:
        raise ModelError(
            f"The student reads at most {limit} tokens. Lower query_length and document_length of student and train."
        )


def settle_student(model: MultiVectorEncoder, source: ModelSource) -> None:
    """Prepare a student that was just loaded (see models/encoders.py).

    Padding is set to the right of the texts, since training cuts it off there.
    """
    model.tokenizer.padding_side = "right"
    prepare_encoder(model, source, "Student")
    limit = length_limit(model)
    set_lengths(model, *(length and min(length, limit) for length in get_lengths(model)))


def get_lengths(model: MultiVectorEncoder) -> tuple[int | None, int | None]:
    """Return the tokens kept of queries and of documents. None means as many as the encoder reads."""
    encoder: Any = model[0]
    expansion = encoder.query_expansion
    return (expansion["length"] if expansion else encoder.query_length), encoder.document_length


def fit_projection(model: MultiVectorEncoder, sample_texts: Sequence[str], dimensions: int) -> Dense:
    """Return a linear projection (without bias) on the principal directions of the texts' token embeddings E.

    The embeddings are not centered, since MaxSim is a sum of dot products. The first eigenvectors of E^T E preserve dot
    products best (Eckart-Young). Raises ModelError if there are no texts, or more dimensions than E has.
    """
    if not sample_texts:
        raise ModelError("student.projection must be fitted to a corpus, but there is none. Set it to 0.")
    embeddings = model.encode_document(list(sample_texts), batch_size=8, show_progress_bar=False)
    tokens = torch.cat([matrix.float().cpu() for matrix in embeddings])
    if dimensions > tokens.shape[1]:
        raise ModelError(
            f"student.projection={dimensions} exceeds the encoder's {tokens.shape[1]} dimensions. Lower it."
        )
    _, vectors = torch.linalg.eigh((tokens.T @ tokens).double())
    weight = vectors[:, -dimensions:].flip(1).T.float().contiguous()
    return Dense(
        in_features=tokens.shape[1],
        out_features=dimensions,
        bias=False,
        activation_function=torch.nn.Identity(),
        init_weight=weight,
        module_input_name="token_embeddings",
    )
