"""The settings of a run as a tree of pydantic models.

Unknown keys and wrong types are refused. The text below each field is its description in `pdadapt recipes settings`
and in docs/reference/settings.md.
"""

from __future__ import annotations

import importlib.util
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

MAX_INTEGER = 2**31 - 1  # some libraries store counts in 32 bits
MAX_DEPTH = 1_000  # documents ranked for a query, if a measure has no cutoff
PositiveInteger = Annotated[int, Field(gt=0, le=MAX_INTEGER)]
TokenLength = Annotated[int, Field(gt=3, le=MAX_INTEGER)]  # includes the special tokens of a text
NonNegativeFloat = Annotated[float, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
LearningRate = Annotated[float, Field(gt=0, le=1)]


class Settings(BaseModel):
    """The base of all sections. It refuses unknown keys, and true or false for any other type."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_for_another(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("YAML reads yes, no, on and off as true and false. Quote the word, or write a number")
        return value


class StudentSettings(Settings):
    """`student`: the retriever that is adapted."""

    model: str = "colbert-ir/colbertv2.0"
    """The model to start from: a hub id, a folder or package:NAME/PATH. It is a ColBERT checkpoint or a plain encoder.
    """
    kind: Literal["colbert", "dense"] = "colbert"
    """colbert: one vector per token, compared by MaxSim. dense: one vector per text."""
    pooling: Literal["cls", "mean"] | None = None
    """Pooling of a dense student. null: as its checkpoint says, or cls for a plain encoder."""
    similarity: Literal["dot", "cosine"] | None = None
    """Similarity function of a dense student. null: as its checkpoint says, or dot for a plain encoder."""
    projection: Annotated[int, Field(ge=0)] = 0
    """Dimensions of a PCA projection of token embeddings, for a plain encoder. 0: no projection."""
    query_length: TokenLength = 32
    """Tokens kept of a query. A ColBERT checkpoint pads shorter queries with [MASK] to this length."""
    document_length: TokenLength = 300
    """Tokens kept of a document when the corpus is indexed."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the encoder's matrix products in indexing and training. auto: bfloat16 if the hardware supports it,
    else float32. Weights, embeddings and scores are always float32."""


class RetrieveSettings(Settings):
    """`retrieve`: candidates for the teacher, and the search engine."""

    model: str | None = None
    """A ColBERT model or plain encoder that retrieves the candidates of the first iteration. null: the student."""
    sources: Annotated[tuple[Literal["student", "bm25"], ...], Field(min_length=1)] = ("student",)
    """Retrievers whose top k documents are merged into the k candidates of a query (reciprocal rank fusion). bm25
    (English) finds documents that a student misses if it is weak in the domain. student also stands for
    retrieve.model."""
    k: Annotated[int, Field(gt=1, le=MAX_INTEGER)] = 100
    """Candidates per query. The teacher judges each of them."""
    max_queries: PositiveInteger | None = None
    """Largest number of training queries; more are sampled with the seed. null: all."""
    batch_tokens: PositiveInteger | None = None
    """Document tokens encoded at once; documents are sorted by length. null: 2,048 on a CPU and 65,536 on a GPU."""
    engine: Literal["exact", "faiss", "plaid", "colbert"] = "exact"
    """Search engine. exact: computes every score. faiss: for dense students. plaid: fast-plaid. colbert: colbert-ai, as
    in the paper."""
    bits: Literal[1, 2, 4, 8] = 2
    """Bits per dimension for residuals (plaid and colbert engines). The paper uses 2."""
    faiss: str = "Flat"
    """Description of the index for faiss.index_factory: Flat, HNSW32, IVF1024,PQ48."""
    nprobe: PositiveInteger = 32
    """Clusters searched per query (faiss engine with an IVF index)."""

    @field_validator("sources")
    @classmethod
    def _each_source_once(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(sources)) < len(sources):
            raise ValueError("a source is repeated. List each source once")
        return sources

    @model_validator(mode="after")
    def _model_is_a_source(self) -> RetrieveSettings:
        if self.model and "student" not in self.sources:
            raise ValueError(
                "retrieve.model is set, but retrieve.sources does not include student. Add student to "
                "retrieve.sources, or set retrieve.model=null"
            )
        return self


def _two_words(words: Any) -> Any:
    if isinstance(words, (list, tuple)) and any(isinstance(word, bool) for word in words):
        raise ValueError('YAML reads Yes and No as true and false. Quote them: ["Yes", "No"]')
    if not isinstance(words, (list, tuple)) or len(words) != 2:
        raise ValueError('must be a list of two words. Write ["Yes", "No"], for example')
    return words


LabelWords = Annotated[tuple[str, str], BeforeValidator(_two_words)]
TeacherKind = Literal[
    "seq2seq", "causal", "cross_encoder", "bi_encoder", "multi_vector", "bm25", "endpoint", "imported"
]


BM25_TEACHER = "bm25"  # the name of BM25 as a teacher


class PointSettings(Settings):
    """`teacher.point`: the teacher's pointwise labels (is this document relevant?)."""

    model: str | None = None
    """The model that gives point labels. null: teacher.model."""
    kind: Literal["auto", TeacherKind] = "auto"
    """The kind of `model`, if it is set (see teacher.kind)."""
    scoring: Literal["labels", "query_likelihood"] = "labels"
    """How a language model scores. labels: log p(Yes) - log p(No). query_likelihood: mean log p(query token |
    document)."""
    prompt: str = "yes-no"
    """The prompt: a name in prompts/, or the path of a .txt file."""
    labels: LabelWords = ("Yes", "No")
    """The words for relevant and not relevant. Each must be a single token."""
    student_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the student's score that is added to the teacher's score. Both are standardised per query. 0: the
    teacher alone."""


class PairSettings(Settings):
    """`teacher.pair`: the teacher's pairwise labels (which of two documents is more relevant?)."""

    model: str | None = None
    """The model that gives pair labels. null: teacher.model."""
    kind: Literal["auto", TeacherKind] = "auto"
    """The kind of `model`, if it is set (see teacher.kind)."""
    scoring: Literal["labels", "derived"] = "labels"
    """labels: log p(A) - log p(B). derived: no question is asked; the label is the difference of the point labels
    divided by train.temperature (for teachers that give only point labels)."""
    per_query: Annotated[int, Field(ge=0)] = 50
    """Pairs per query. 0: no pairs, and no L_pair."""
    strategy: Literal["window", "random", "adjacent", "cycles", "uncertain", "active"] = "window"
    """Which pairs are chosen from the list, which is sorted by point labels. window: at random with |i - j| < window,
    as in the paper. random: at random. adjacent: neighbours, from the top. cycles: random Hamiltonian cycles, one after
    the other. uncertain: the pairs whose order is least certain from point labels and retrieval scores together.
    active: in rounds, the pairs whose order is least certain in a Bradley-Terry fit to the answers so far, above all
    pairs at the top."""
    window: Annotated[int, Field(gt=1)] = 10
    """The paper's delta (strategy window)."""
    rounds: PositiveInteger = 5
    """Number of rounds, each followed by a new fit (strategy active)."""
    prompt: str = "a-b"
    """The prompt: a name in prompts/, or the path of a .txt file."""
    labels: LabelWords = ("A", "B")
    """The words for the first and the second document. Each must be a single token."""
    order: Literal["both", "random", "as_ranked"] = "both"
    """Order of the two documents in the prompt. both: ask both orders and average the log-odds. random: one order,
    chosen by the seed. as_ranked: the higher-ranked document first (the label then mixes position bias with rank)."""

    @property
    def asks_teacher(self) -> bool:
        """Whether a teacher is asked about pairs."""
        return self.per_query > 0 and self.scoring == "labels"

    @property
    def rounds_asked(self) -> int:
        """The number of rounds in which pairs of a query are chosen. Only strategy active has more than one."""
        return min(self.rounds, self.per_query) if self.strategy == "active" and self.per_query else 1

    @model_validator(mode="after")
    def _rounds_need_answers(self) -> PairSettings:
        if self.strategy == "active" and self.scoring == "derived":
            raise ValueError(
                "strategy active needs the answers of a teacher, but scoring derived asks none. Choose another strategy"
            )
        return self


class ModelSettings(Settings):
    """The model of a teacher, and how it is loaded."""

    model_config = ConfigDict(frozen=True)

    model: str = "google/flan-t5-xl"
    """The teacher: a hub id, a folder, package:NAME/PATH (also a .gguf file), http://HOST/v1#NAME (model NAME on an
    OpenAI-compatible server), bm25 (BM25 in the corpus), or imported:NAME (labels from `pdadapt labels import`; no
    model is asked)."""
    kind: Literal["auto", TeacherKind] = "auto"
    """Kind of teacher. auto: as the model's configuration says. multi_vector: the token embeddings of any encoder,
    compared by MaxSim."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the model. auto: bfloat16 on a GPU or CPU that supports it, else float32. Log-odds are always
    float32."""
    quantize: Literal["8bit", "4bit"] | None = None
    """Load the weights of language models in 8 or 4 bits (bitsandbytes). Needs a GPU."""
    device_map: Literal["auto"] | None = None
    """auto: spread a model that is larger than one GPU over several GPUs (accelerate)."""
    compile: bool = False
    """Compile the model's feed-forward parts (torch.compile). This takes minutes and pays off on long labelings."""
    max_length: PositiveInteger = 1024
    """Largest number of tokens of a prompt. Documents are truncated evenly to fit."""
    max_document_length: PositiveInteger | None = None
    """Largest number of tokens kept of a document. null: as many as max_length allows. For a server, whose tokenizer is
    unknown, four bytes count as one token."""
    batch_tokens: PositiveInteger | None = None
    """Tokens scored at once. null: as many as fit into the GPU's memory; on a CPU 1,024 (decoder-only models:
    2,048)."""
    concurrency: PositiveInteger = 16
    """Simultaneous requests to each server."""
    endpoints: tuple[str, ...] = ()
    """Further servers of the same model, http://HOST/v1 each. A question goes to the next free server."""


class TeacherSettings(ModelSettings):
    """`teacher`: the model or models that label documents."""

    model_config = ConfigDict(frozen=False)

    point: PointSettings = PointSettings()
    pair: PairSettings = PairSettings()


class TrainSettings(Settings):
    """`train`: the student's training."""

    steps: PositiveInteger | None = None
    """Optimizer steps. null: `epochs` passes over the queries."""
    epochs: PositiveFloat = 1.0
    """Passes over the queries, if steps is null."""
    max_epochs: PositiveFloat | None = None
    """Upper limit on passes over the queries, whatever steps and epochs say. null: no limit."""
    batch_size: PositiveInteger = 32
    """Queries per optimizer step."""
    chunk_tokens: PositiveInteger = 8_192
    """Document tokens encoded at once; documents are sorted by length. A batch is processed in parts of as many whole
    queries as fit. In-batch negatives tie its queries together, and it is then processed as one part. The gradient is
    the same."""
    gradient_cache: bool = False
    """Recompute a chunk's activations for its gradient instead of keeping them. Memory no longer grows with batch_size
    x n_way, a step takes about a third longer, and the gradient is the same."""
    gradient_checkpointing: bool = False
    """Recompute each layer's activations for its gradient. This needs still less memory and is slower."""
    compile: bool = False
    """Compile the encoder (torch.compile). This takes minutes and pays off on long trainings."""
    n_way: Annotated[int, Field(gt=1)] = 64
    """Documents per query in training, if there are as many candidates."""
    list: Literal["best", "pairs"] = "best"
    """Which candidates of a query are trained on, besides those labeled relevant. best: the top n_way by point labels;
    pairs are chosen among them. pairs (as in the released code): pairs are chosen among all candidates, and random
    candidates are added to their documents up to n_way; if the pairs have more than n_way documents, the list is
    longer."""
    learning_rate: LearningRate = 1e-5
    """Peak learning rate (AdamW)."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the steps in which the learning rate rises. It then falls linearly to 0."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay (AdamW), not applied to biases and norms. The released code has none."""
    max_grad_norm: PositiveFloat = 2.0
    """Gradients with a larger norm are scaled down to this norm."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Dropout of all dropout layers in training. null: as the model's configuration says. On a CPU, 0 halves the time
    of a step."""
    layers: Annotated[int, Field(ge=0)] | None = None
    """Top layers of the encoder that are trained. Everything else of the encoder keeps its weights, and a step takes
    less time and memory. The projection is always trained; a ColBERT student without one starts with the identity.
    null: the whole encoder. 0: the projection alone. The encoder then reads without dropout, and each text once unless
    several processes train."""
    held_out: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the queries that is held out: labeled but not trained on. At most 500 queries are held out. If the share
    is fewer than 20 queries, none are. Held-out queries show how far the student agrees with the teacher. If an
    iteration does not raise the agreement, iterations end and the previous checkpoint is kept."""
    lambda_cl: NonNegativeFloat = 0.0
    """Weight of L_CL. It is computed on queries with a relevant document: one from judgments, or the `doc_id` of
    generated queries."""
    own_negatives: bool = True
    """Whether the other documents of a query's list are negatives in L_CL. In the released code they are not, because
    many candidates in MS MARCO are relevant but not labeled."""
    in_batch_negatives: bool = True
    """Whether documents of other queries in the batch are negatives in L_CL. Documents that are also on the query's own
    list are left out. (In the released code they count, and a document on two other lists counts twice.)"""
    lambda_kd: NonNegativeFloat = 1.0
    """Weight of L_KD, which learns from the point labels."""
    lambda_pair: NonNegativeFloat = 3.0
    """Weight of L_pair, which learns from the pair labels."""
    kd_target: Literal["points", "strengths"] = "points"
    """Target of L_KD. points: the point labels. strengths: strengths of a Bradley-Terry fit to the list's pairs with
    the point labels as prior. With lambda_pair 0 the student learns from the strengths alone, else also from the
    pairs."""
    prior_precision: PositiveFloat = 0.3
    """Precision of the prior that ties the strengths to the point labels. For comparison, the answer about one pair
    adds P (1 - P), which is at most a quarter."""
    temperature: PositiveFloat = 1.0
    """The paper's tau. The teacher's point labels are divided by it in L_KD, in derived pairs, in the Bradley-Terry fit
    and in the agreement."""
    student_temperature: PositiveFloat | Literal["auto"] = 1.0
    """The student's scores are divided by it in L_KD, L_pair and L_CL. The paper uses 1.0. auto: the temperature with
    the least L_KD before training, fitted to 64 lists, so that training need not mend the scale of the scores."""
    pair_reduction: Literal["mean", "sum"] = "mean"
    """mean: mean over all pairs of the batch (released code). sum: sum over a query's pairs, then mean over queries
    (paper)."""
    query_length: TokenLength = 32
    """Tokens kept of a query in training."""
    document_length: TokenLength = 180
    """Tokens kept of a document in training."""
    save_steps: PositiveInteger = 500
    """Steps between resumable checkpoints. One is also written at each check."""
    checks: PositiveInteger | None = None
    """Number of checks at equal distances in training, besides one before it. A check measures the agreement on half of
    the held-out queries. The best checked state becomes the checkpoint. If this and check_steps are null, the last
    state does."""
    check_steps: PositiveInteger | None = None
    """Steps between checks, in place of `checks`. There is also a check at the end."""
    patience: PositiveInteger = 3
    """Training stops after this many checks in a row without a new best."""
    report_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Further destinations of losses by term, learning rate, gradient norm and examples per second. They are always
    written to train.jsonl."""

    @property
    def keeps_best(self) -> bool:
        """Whether checks on held-out queries choose the state that becomes the checkpoint."""
        return bool(self.checks or self.check_steps)

    def paired_candidates(self, candidates: int) -> int:
        """Among how many of a query's candidates, counted from the best by point labels, pairs are chosen."""
        return candidates if self.list == "pairs" else min(self.n_way, candidates)

    @model_validator(mode="after")
    def _checks_have_queries(self) -> TrainSettings:
        if self.checks and self.check_steps:
            raise ValueError("checks and check_steps are both set. Set one of them to null")
        if self.keeps_best and not self.held_out:
            name = "checks" if self.checks else "check_steps"
            raise ValueError(f"{name} needs held-out queries. Set held_out to 0.1, for example, or {name} to null")
        return self

    @model_validator(mode="after")
    def _labeled_documents_have_negatives(self) -> TrainSettings:
        if not self.lambda_cl or self.own_negatives:
            return self
        if not self.in_batch_negatives:
            raise ValueError(
                "own_negatives and in_batch_negatives are both false, so L_CL has no negatives. Set one of them to "
                "true, or lambda_cl to 0"
            )
        if self.batch_size == 1:
            raise ValueError(
                "own_negatives is false and batch_size is 1, so L_CL has no negatives. Set own_negatives to true, or "
                "batch_size to 2 or more"
            )
        return self

    @model_validator(mode="after")
    def _reporters_are_installed(self) -> TrainSettings:
        for name in self.report_to:
            if importlib.util.find_spec(name) is None:
                raise ValueError(f"report_to: {name} is not installed. Run `pip install {name}`")
        return self


class RerankerSettings(Settings):
    """`reranker`: a classifier that `pdadapt train-reranker` fits to labels. It can serve as a teacher."""

    model: str = "microsoft/MiniLM-L12-H384-uncased"
    """The encoder to start from: a hub id, a folder or package:NAME/PATH."""
    task: Literal["point", "pair"] = "pair"
    """point: is the document relevant? pair: which of two documents is more relevant (PairDistill, section 4.1)?"""
    negatives: PositiveInteger = 4
    """Negatives per relevant document. They are candidates of the query that are not labeled relevant."""
    max_length: PositiveInteger = 512
    """Largest number of tokens of query and documents together. Documents are truncated evenly to fit."""
    steps: PositiveInteger | None = None
    """Optimizer steps. null: `epochs` passes over the examples."""
    epochs: PositiveFloat = 1.0
    """Passes over the examples, if steps is null."""
    batch_size: PositiveInteger = 32
    """Examples per optimizer step."""
    learning_rate: LearningRate = 2e-5
    """Peak learning rate (AdamW)."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the steps in which the learning rate rises. It then falls linearly to 0."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Dropout of all dropout layers in training. null: as the model's configuration says. On a CPU, 0 halves the time
    of a step."""
    save_steps: PositiveInteger = 100
    """Steps between resumable states."""


class EvaluateSettings(Settings):
    """`evaluate`: measurements on test queries."""

    k: PositiveInteger = 100
    """Documents ranked per test query."""
    split: str = "test"
    """The split to test on: qrels/<split>.tsv of a BEIR folder."""
    max_queries: PositiveInteger | None = None
    """Largest number of test queries; more are sampled with the seed. null: all."""
    measures: Annotated[tuple[str, ...], Field(min_length=1)] = ("nDCG@10", "RR@10", "R@100", "Success@5")
    """Measures, as ir-measures names them."""
    resamples: PositiveInteger = 10_000
    """Permutations of the paired randomisation test."""
    general: bool = True
    """Also measure base and adapted student on a general set (English, all subjects) to detect forgetting."""

    @property
    def depth(self) -> int:
        """The number of documents ranked for a query: the larger of k and the largest cutoff of a measure.

        Measures without a cutoff, such as AP, count as 1,000, which is usual for runs.
        """
        cutoffs = (re.search(r"@(\d+)$", name) for name in self.measures)
        return max([self.k, *(int(found[1]) if found else MAX_DEPTH for found in cutoffs)])


QueryKind = Literal["question", "keywords", "claim", "title"]


class GenerateSettings(Settings):
    """`generate`: queries that an LLM writes (`pdadapt queries`, and `pdadapt adapt` on a corpus without queries)."""

    model: str | None = None
    """The LLM that writes queries; for its form see teacher.model. It is loaded with the teacher's settings. null:
    teacher.model."""
    count: PositiveInteger = 1_000
    """Number of queries to generate."""
    kinds: dict[QueryKind, NonNegativeFloat] | None = None
    """Shares of the kinds of queries among those kept, {question: 2, keywords: 1}. null: the shares in `examples`, or
    equal shares of question, keywords, claim and title."""
    examples: str | None = None
    """A file of real queries (for its format see --queries). Their kinds set the shares."""
    prompts: dict[QueryKind, str] = {}
    """Prompts by kind, {question: mine.txt}: a name in prompts/, or the path of a .txt file. Other kinds use
    query-KIND."""
    temperature: NonNegativeFloat = 0.7
    """Sampling temperature. 0: always the most likely token."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Nucleus sampling: draw from the most likely tokens that together have this probability."""
    max_tokens: PositiveInteger = 64
    """Largest number of tokens written per query. Only the first line counts."""
    round_trip: Literal["bm25", "student"] | None = "bm25"
    """Round-trip check: a query is kept if this retriever finds its document among the top k. bm25 works best for
    English. null: no check."""
    k: PositiveInteger = 20
    """Depth of the round-trip check."""
    least_point: float | None = None
    """A query is kept if the teacher's point label for its document is at least this. null: the teacher is not
    asked."""

    @field_validator("kinds")
    @classmethod
    def _some_kind(cls, kinds: dict[QueryKind, float] | None) -> dict[QueryKind, float] | None:
        if kinds is not None and not any(kinds.values()):
            raise ValueError("no kind has a share above 0. Give one a share, or set kinds to null")
        return kinds


class Recipe(Settings):
    """All settings of one run of `pdadapt adapt`."""

    seed: Annotated[int, Field(ge=0, le=MAX_INTEGER)] = 42
    """Seed of all random choices: queries, pairs, batches, new weights."""
    iterations: PositiveInteger = 1
    """How often retrieve, label and train are done. Each iteration starts from the checkpoint of the one before."""
    label_store: str | None = None
    """An SQLite file of labels, which several runs can share. null: labels.sqlite in the run folder."""
    student: StudentSettings = StudentSettings()
    generate: GenerateSettings = GenerateSettings()
    retrieve: RetrieveSettings = RetrieveSettings()
    teacher: TeacherSettings = TeacherSettings()
    train: TrainSettings = TrainSettings()
    reranker: RerankerSettings = RerankerSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    @model_validator(mode="after")
    def _something_to_learn(self) -> Recipe:
        train = self.train
        if not train.lambda_cl and not train.lambda_kd and not (train.lambda_pair and self.teacher.pair.per_query):
            raise ValueError(
                "there is nothing to learn: train.lambda_cl and train.lambda_kd are 0, and so is train.lambda_pair or "
                "teacher.pair.per_query. Set one of the lambdas above 0"
            )
        if train.kd_target == "strengths" and not self.teacher.pair.per_query:
            raise ValueError(
                "train.kd_target is strengths, which are fitted to pairs, but teacher.pair.per_query is 0. Set it to "
                "10, for example"
            )
        return self

    @model_validator(mode="after")
    def _dense_student_has_no_projection(self) -> Recipe:
        if self.student.kind == "dense" and self.train.layers == 0:
            raise ValueError(
                "train.layers=0 trains the projection alone, which a dense student does not have. Set it to 1 or more"
            )
        return self

    @model_validator(mode="after")
    def _student_weight_has_its_scores(self) -> Recipe:
        if self.teacher.point.student_weight and "bm25" in self.retrieve.sources:
            raise ValueError(
                "teacher.point.student_weight needs the student's scores, which candidates do not have when "
                "retrieve.sources includes bm25. Set it to 0, or set retrieve.sources=[student]"
            )
        return self
