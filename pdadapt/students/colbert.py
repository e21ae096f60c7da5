"""The ColBERT student: sentence-transformers' MultiVectorEncoder, from a ColBERT checkpoint or a plain encoder.

A plain encoder starts with its token embeddings as they are, or projected by a PCA of the corpus' own token
embeddings: never by random numbers, so that the untrained student is already a good retriever.
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

PCA_DOCUMENTS = 1_000  # as many passages are enough to fit a projection to their token embeddings


def load_colbert(
    name: str,
    query_length: int | None = None,
    document_length: int | None = None,
    projection: int = 0,
    passages: Sequence[str] = (),
    dtype: str = "float32",
) -> MultiVectorEncoder:
    """A student ready to encode and to train.

    name: a model name (see models.py). query_length, document_length: tokens kept; None means as the checkpoint says,
    or 32 and 300 for a plain encoder, if it reads as many. For a plain encoder, `projection` dimensions (0: none) are
    fitted to the token embeddings of `passages`. dtype: what the encoder multiplies in (see device.py); weights and
    embeddings are float32.

    Raises ModelError when the checkpoint does not load, or is no student.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)  # weights that a checkpoint lacks, such as BERT's unused pooler, are the same every time
        return _load(name, query_length, document_length, projection, passages, dtype)


def _load(
    name: str,
    query_length: int | None,
    document_length: int | None,
    projection: int,
    passages: Sequence[str],
    dtype: str,
) -> MultiVectorEncoder:
    source = resolve_model(name)
    weights = {"use_safetensors": True, "dtype": torch.float32}  # half-precision master weights would not learn
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
        known = [mark for mark in string.punctuation if encoder.tokenizer.convert_tokens_to_ids(mark) not in unknown]
        tail = [MultiVectorMask(skiplist_words=known), Normalize(module_input_name="token_embeddings")]
        model = MultiVectorEncoder(modules=[encoder, *tail])
    settle_student(model, source)
    limit = length_limit(model)
    set_lengths(model, query_length or min(32, limit), document_length or min(300, limit))
    set_compute_dtype(model, dtype)
    if projection:
        model = MultiVectorEncoder(modules=[encoder, fit_projection(model, passages, projection), *tail])
    return model


def set_lengths(model: MultiVectorEncoder, query_length: int | None, document_length: int | None) -> None:
    """Tokens kept of queries and documents (None: as they are); queries that are padded with [MASK] are padded to it.

    Raises ModelError when the encoder has fewer positions.
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
    """Raises ModelError when more tokens are asked for than the student reads."""
    if max(length or 0 for length in lengths) > limit:
        raise ModelError(
            f"The student reads at most {limit} tokens; lower query_length and document_length of student and train."
        )


def settle_student(model: MultiVectorEncoder, source: ModelSource) -> None:
    """Make a student that was just loaded fit for work (see encoders.py); padding stands behind its texts, whatever the
    tokenizer says, since training cuts it off there.
    """
    model.tokenizer.padding_side = "right"
    prepare_encoder(model, source, "Student")
    limit = length_limit(model)
    set_lengths(model, *(length and min(length, limit) for length in get_lengths(model)))


def get_lengths(model: MultiVectorEncoder) -> tuple[int | None, int | None]:
    """Tokens kept of queries and of documents; None means as many as the encoder reads."""
    encoder: Any = model[0]
    expansion = encoder.query_expansion
    return (expansion["length"] if expansion else encoder.query_length), encoder.document_length


def fit_projection(model: MultiVectorEncoder, passages: Sequence[str], dimensions: int) -> Dense:
    """A linear projection (without bias) on the main directions of the passages' token embeddings.

    Uncentred, since MaxSim is made of dot products: the first eigenvectors of E^T E keep those best (Eckart-Young).
    """
    if not passages:
        raise ModelError("student.projection needs a corpus to be fitted to; set it to 0.")
    embeddings = model.encode_document(list(passages), batch_size=8, show_progress_bar=False)
    tokens = torch.cat([matrix.float().cpu() for matrix in embeddings])
    if dimensions > tokens.shape[1]:
        raise ModelError(
            f"student.projection {dimensions} exceeds the encoder's {tokens.shape[1]} dimensions; lower it."
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
