"""The settings of a run: a tree of pydantic models. Unknown keys and wrong types are refused."""

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

MAX_INTEGER = 2**31 - 1  # that every library counts to
PositiveInteger = Annotated[int, Field(gt=0, le=MAX_INTEGER)]
TokenLength = Annotated[int, Field(gt=3, le=MAX_INTEGER)]  # of a text with its special tokens
NonNegativeFloat = Annotated[float, Field(ge=0)]
MAX_DEPTH = 1_000  # documents ranked for a query, if a measure has no cutoff
PositiveFloat = Annotated[float, Field(gt=0)]
LearningRate = Annotated[float, Field(gt=0, le=1)]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_for_another(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("YAML reads yes, no, on and off as true and false; quote a word, or give a number")
        return value


class StudentSettings(Settings):
    model: str = "colbert-ir/colbertv2.0"
    """Hub id, folder or package:NAME/PATH: a ColBERT checkpoint, or a plain encoder to start from."""
    kind: Literal["colbert", "dense"] = "colbert"
    """colbert: a vector a token, MaxSim; dense: a vector a text."""
    pooling: Literal["cls", "mean"] | None = None
    """Of a dense student; null means as its checkpoint says, or cls for a plain encoder."""
    similarity: Literal["dot", "cosine"] | None = None
    """Of a dense student; null means as its checkpoint says, or dot for a plain encoder."""
    projection: Annotated[int, Field(ge=0)] = 0
    """For a plain encoder: dimensions of a PCA projection of the token embeddings; 0 keeps them as they are."""
    query_length: TokenLength = 32
    """Tokens kept of a query (a ColBERT checkpoint pads with [MASK] up to it)."""
    document_length: TokenLength = 300
    """Tokens kept of a document when the corpus is indexed."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What the encoder multiplies in, to index and to train; auto: bfloat16 where the hardware does, else float32.
    Weights, embeddings and scores are float32 always."""


class RetrieveSettings(Settings):
    model: str | None = None
    """A ColBERT model, or plain encoder, that retrieves the first iteration's candidates; null means the student."""
    sources: Annotated[tuple[Literal["student", "bm25"], ...], Field(min_length=1)] = ("student",)
    """Whose k best are merged, by reciprocal rank fusion, into the k candidates of `adapt`. With bm25 (English) the
    teacher sees what a student misses that is weak in the domain; student stands for retrieve.model too."""
    k: Annotated[int, Field(gt=1, le=MAX_INTEGER)] = 100
    """Candidates retrieved per query: those the teacher judges one by one."""
    max_queries: PositiveInteger | None = None
    """Adapt on at most so many queries (a seeded sample); null means all."""
    batch_tokens: PositiveInteger | None = None
    """Tokens of documents encoded at once, sorted by length; null means 2,048 on a CPU and 65,536 on a GPU."""
    engine: Literal["exact", "faiss", "plaid", "colbert"] = "exact"
    """exact: every score; faiss: a dense student's vectors; plaid: fast-plaid; colbert: the paper's own, colbert-ai."""
    bits: Literal[1, 2, 4, 8] = 2
    """Of plaid and colbert: bits of each dimension's residual; the paper's indexes have 2."""
    faiss: str = "Flat"
    """What faiss.index_factory makes: Flat, HNSW32, IVF1024,PQ48."""
    nprobe: PositiveInteger = 32
    """Of faiss' IVF: clusters looked into for a query."""

    @field_validator("sources")
    @classmethod
    def _each_source_once(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(sources)) < len(sources):
            raise ValueError("a source stands twice; give each once")
        return sources

    @model_validator(mode="after")
    def _model_is_a_source(self) -> RetrieveSettings:
        if self.model and "student" not in self.sources:
            raise ValueError("model retrieves for the source student, which sources lack; add it, or set model=null")
        return self


def _two_words(words: Any) -> Any:
    if isinstance(words, (list, tuple)) and any(isinstance(word, bool) for word in words):
        raise ValueError('YAML reads Yes and No as true and false; quote them: ["Yes", "No"]')
    if not isinstance(words, (list, tuple)) or len(words) != 2:
        raise ValueError('two words are wanted, as in ["Yes", "No"]')
    return words


LabelWords = Annotated[tuple[str, str], BeforeValidator(_two_words)]
TeacherKind = Literal[
    "auto", "seq2seq", "causal", "cross_encoder", "bi_encoder", "multi_vector", "endpoint", "imported"
]


class PointSettings(Settings):
    model: str | None = None
    """The model that judges points, when it is not teacher.model."""
    kind: TeacherKind = "auto"
    """Its kind, when it is not teacher.model."""
    scoring: Literal["labels", "query_likelihood"] = "labels"
    """For language models. labels: log p(Yes) - log p(No); query_likelihood: mean log p(query token | document)."""
    prompt: str = "yes-no"
    """A name in prompts/, or the path of a .txt file."""
    labels: LabelWords = ("Yes", "No")
    """The words for relevant and not relevant; each must be a single token."""
    student_weight: Annotated[float, Field(ge=0)] = 0.0
    """Adds this times the student's own score, both standardised per query, to the teacher's; 0 trusts the teacher."""


class PairSettings(Settings):
    model: str | None = None
    """The model that judges pairs, when it is not teacher.model."""
    kind: TeacherKind = "auto"
    """Its kind, when it is not teacher.model."""
    scoring: Literal["labels", "derived"] = "labels"
    """labels: log p(A) - log p(B); derived: nothing is asked, the difference of the point labels over the temperature
    of training stands for it (for teachers of points only)."""
    per_query: Annotated[int, Field(ge=0)] = 50
    """Pairs per query; 0 leaves L_pair out."""
    strategy: Literal["window", "random", "adjacent", "cycles", "uncertain", "active"] = "window"
    """Which pairs of a list, ordered by the point labels. window: any with |i - j| < window (the paper's); random: any;
    adjacent: neighbours, from the top; cycles: random Hamiltonian cycles, one after the other; uncertain: those that
    points and scores of retrieval together tell apart the least; active: in rounds, those of which a Bradley-Terry fit
    to the answers so far is the least certain, at the top above all."""
    window: Annotated[int, Field(gt=1)] = 10
    """delta, of strategy window."""
    rounds: PositiveInteger = 5
    """Of strategy active: how often the fit is made anew."""
    prompt: str = "a-b"
    """A name in prompts/, or the path of a .txt file."""
    labels: LabelWords = ("A", "B")
    """The words for the first and the second document; each must be a single token."""
    order: Literal["both", "random", "as_ranked"] = "both"
    """both: ask (a, b) and (b, a) and average the log-odds; random: one of them, by the seed; as_ranked: the
    higher-ranked document first (position bias and rank are then mixed up)."""

    @property
    def asks_teacher(self) -> bool:
        """Whether a teacher is asked about pairs."""
        return self.per_query > 0 and self.scoring == "labels"

    @property
    def rounds_asked(self) -> int:
        return min(self.rounds, self.per_query) if self.strategy == "active" and self.per_query else 1

    @model_validator(mode="after")
    def _rounds_need_answers(self) -> PairSettings:
        if self.strategy == "active" and self.scoring == "derived":
            raise ValueError(
                "strategy active chooses by a teacher's answers, and derived asks none; choose another one"
            )
        return self


class ModelSettings(Settings):
    """Which model a teacher is, and how it is loaded."""

    model_config = ConfigDict(frozen=True)

    model: str = "google/flan-t5-xl"
    """Hub id, folder, package:NAME/PATH (a .gguf file too), http://HOST/v1#NAME (NAME behind an OpenAI-compatible
    server), or imported:NAME (nothing is asked: the labels came by `pdadapt labels import`)."""
    kind: TeacherKind = "auto"
    """auto: what the model's configuration says; multi_vector takes any encoder's token embeddings under MaxSim."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 on a GPU or CPU that computes in it, else float32; log-odds are float32 always."""
    quantize: Literal["8bit", "4bit"] | None = None
    """Weights of language models in 8 or 4 bits, by bitsandbytes; needs a GPU."""
    device_map: Literal["auto"] | None = None
    """auto: spread a model that is larger than one GPU over several, by accelerate."""
    compile: bool = False
    """Compile the model's feed-forward parts (torch.compile); worth its minutes on long labelings."""
    max_length: PositiveInteger = 1024
    """Tokens of a prompt; documents are cut, evenly, to fit."""
    max_document_length: PositiveInteger | None = None
    """Tokens kept of each document at most; null means as max_length allows. (A server's tokenizer is not at hand, so
    there four bytes count as a token.)"""
    batch_tokens: PositiveInteger | None = None
    """Tokens scored at once; null means as the GPU's memory allows, and 1,024 (decoder-only: 2,048) on a CPU."""
    concurrency: PositiveInteger = 16
    """Requests in flight to each server."""
    endpoints: tuple[str, ...] = ()
    """More servers of the model, http://HOST/v1 each: questions go to whichever is free."""


class TeacherSettings(ModelSettings):
    model_config = ConfigDict(frozen=False)

    point: PointSettings = PointSettings()
    pair: PairSettings = PairSettings()


class TrainSettings(Settings):
    steps: PositiveInteger | None = None
    """Optimizer steps; null means `epochs` passes over the queries."""
    epochs: PositiveFloat = 1.0
    """Passes over the queries, when steps is null."""
    max_epochs: PositiveFloat | None = None
    """Training makes no more passes over the queries than this, whatever steps and epochs say; null: no cap."""
    batch_size: PositiveInteger = 32
    """Queries per optimizer step."""
    chunk_tokens: PositiveInteger = 8_192
    """Document tokens encoded at once, sorted by length. A batch is taken in parts, of as many whole queries as this
    holds, or whole where in-batch negatives tie it together; the gradient is the same."""
    gradient_cache: bool = False
    """Compute a chunk's activations again for its gradient instead of keeping them: memory no longer grows with
    batch_size x n_way, a step takes about a third longer, and the gradient is the same."""
    gradient_checkpointing: bool = False
    """Compute each layer's activations again for its gradient: less memory still, and slower."""
    compile: bool = False
    """Compile the encoder (torch.compile); worth its minutes on long trainings."""
    n_way: Annotated[int, Field(gt=1)] = 64
    """Documents per query in training, if there are as many candidates."""
    list: Literal["best", "pairs"] = "best"
    """Which of a query's candidates are trained on; those labeled relevant always are. best: the n_way best by the
    point labels, of which pairs are chosen. pairs, as in the released code: pairs are chosen of all candidates, and
    their documents are filled up to n_way at random; a list is longer where its pairs name more than n_way."""
    learning_rate: LearningRate = 1e-5
    """The highest of the run, of AdamW."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the steps over which the learning rate rises; it then falls linearly to 0."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's; not on biases and norms. The released code has none."""
    max_grad_norm: PositiveFloat = 2.0
    """Gradients longer than this are scaled down to it."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Of all dropout layers while training; null means as the model's configuration says. 0 halves a step on a CPU."""
    held_out: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the queries (at most 500; where it makes less than 20, none) that is labeled but not trained on, to see
    whether the student comes to agree with the teacher; iterations end, and the checkpoint before is kept, when it does
    so no more than before."""
    lambda_cl: NonNegativeFloat = 0.0
    """Of L_CL, on the queries that have labels: judgments, or the `doc_id` that `pdadapt queries` wrote them about."""
    own_negatives: bool = True
    """L_CL sets a labeled document against the rest of its own list. The released code does not: many of MS MARCO's
    candidates are relevant and not labeled."""
    in_batch_negatives: bool = True
    """L_CL sets a labeled document against the other queries' documents: those listed for another query of the batch
    and not for its own. (The released code goes by places: what is on both lists counts too, and counts twice on two.)
    """
    lambda_kd: NonNegativeFloat = 1.0
    """Of L_KD, on the point labels."""
    lambda_pair: NonNegativeFloat = 3.0
    """Of L_pair, on the pair labels."""
    kd_target: Literal["points", "strengths"] = "points"
    """What L_KD learns. points: the point labels; strengths: of a Bradley-Terry fit to a list's pairs, with the point
    labels as prior. Learn from strengths alone with lambda_pair 0, from both otherwise."""
    prior_precision: PositiveFloat = 0.3
    """How firmly the Bradley-Terry strengths hold to the point labels: the precision of their prior. For comparison, each
    answer about a pair adds P (1 - P), at most a quarter."""
    temperature: PositiveFloat = 1.0
    """tau: the teacher's point labels are divided by it before the softmax."""
    student_temperature: PositiveFloat = 1.0
    """The student's scores are divided by it in both losses; 1.0 is the paper's."""
    pair_reduction: Literal["mean", "sum"] = "mean"
    """mean: over all pairs of the batch (the released code); sum: over a query's pairs, mean over queries (paper)."""
    query_length: TokenLength = 32
    """Tokens kept of a query in training."""
    document_length: TokenLength = 180
    """Tokens kept of a document in training."""
    save_steps: PositiveInteger = 500
    """A resumable checkpoint is written every so many steps, and at each check."""
    checks: PositiveInteger | None = None
    """So many times, evenly over the training, the agreement on half of the queries held out is measured, and the best
    state becomes the checkpoint. With this and check_steps null the last one does."""
    check_steps: PositiveInteger | None = None
    """The same every so many steps, and at the end."""
    patience: PositiveInteger = 3
    """Training stops when so many checks in a row were no better than one before them."""
    report_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Where losses by term, learning rate, gradient norm and examples per second go besides train.jsonl."""

    @property
    def keeps_best(self) -> bool:
        """Whether the best of several states is kept, by the queries held out."""
        return bool(self.checks or self.check_steps)

    def paired_candidates(self, candidates: int) -> int:
        """Of how many of so many candidates, the best by the point labels, pairs are chosen."""
        return candidates if self.list == "pairs" else min(self.n_way, candidates)

    @model_validator(mode="after")
    def _checks_have_queries(self) -> TrainSettings:
        if self.checks and self.check_steps:
            raise ValueError("checks and check_steps both say when to check; set one of them to null")
        if self.keeps_best and not self.held_out:
            name = "checks" if self.checks else "check_steps"
            raise ValueError(f"{name} needs queries held out; set held_out to 0.1, say, or {name} to null")
        return self

    @model_validator(mode="after")
    def _labeled_documents_have_negatives(self) -> TrainSettings:
        if not self.lambda_cl or self.own_negatives:
            return self
        if not self.in_batch_negatives:
            raise ValueError(
                "own_negatives and in_batch_negatives are both false, so L_CL has nothing to set a labeled document "
                "against; set one of them to true, or lambda_cl to 0"
            )
        if self.batch_size == 1:
            raise ValueError(
                "own_negatives is false, and a batch_size of 1 holds no other query's documents for L_CL; set "
                "own_negatives to true, or batch_size to 2 or more"
            )
        return self

    @model_validator(mode="after")
    def _reporters_are_installed(self) -> TrainSettings:
        for name in self.report_to:
            if importlib.util.find_spec(name) is None:
                raise ValueError(f"report_to: {name} is not installed; run `pip install {name}`")
        return self


class RerankerSettings(Settings):
    """Of `pdadapt train-reranker`: a classifier teacher, fitted to labels."""

    model: str = "microsoft/MiniLM-L12-H384-uncased"
    """The encoder to start from: a hub id, a folder or package:NAME/PATH."""
    task: Literal["point", "pair"] = "pair"
    """point: is the document relevant; pair: which of two is the more relevant (PairDistill, section 4.1)."""
    negatives: PositiveInteger = 4
    """Per relevant document: so many of the query's candidates that are not labeled relevant."""
    max_length: PositiveInteger = 512
    """Tokens of query and documents together; documents are cut, evenly, to fit."""
    steps: PositiveInteger | None = None
    """Optimizer steps; null means `epochs` passes."""
    epochs: PositiveFloat = 1.0
    """Passes over the examples, when steps is null."""
    batch_size: PositiveInteger = 32
    """Examples per optimizer step."""
    learning_rate: LearningRate = 2e-5
    """The highest of the run."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the steps over which the learning rate rises; it then falls linearly to 0."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Of all dropout layers while training; null means as the model's configuration says. 0 halves a step on a CPU."""
    save_steps: PositiveInteger = 100
    """A resumable state is written every so many steps."""


class EvaluateSettings(Settings):
    k: PositiveInteger = 100
    """Depth of the test runs."""
    split: str = "test"
    """qrels/<split>.tsv of a BEIR folder."""
    max_queries: PositiveInteger | None = None
    """Test on at most so many queries (a seeded sample); null means all."""
    measures: Annotated[tuple[str, ...], Field(min_length=1)] = ("nDCG@10", "RR@10", "R@100", "Success@5")
    """Names of ir-measures."""
    resamples: PositiveInteger = 10_000
    """Permutations of the paired randomisation test."""
    general: bool = True
    """Measure base and adapted student on the general set too (English, all subjects): was anything forgotten?"""

    @property
    def depth(self) -> int:
        """How many documents are ranked for a query: k, or the largest cutoff of a measure; 1,000 for AP and others
        without a cutoff, as in the field's runs.
        """
        cutoffs = (re.search(r"@(\d+)$", name) for name in self.measures)
        return max([self.k, *(int(found[1]) if found else MAX_DEPTH for found in cutoffs)])


QueryKind = Literal["question", "keywords", "claim", "title"]


class GenerateSettings(Settings):
    """Of `pdadapt queries`, and of `pdadapt adapt` where the corpus brings no queries: an LLM writes them."""

    model: str | None = None
    """The LLM that writes, named as teacher.model is; null means teacher.model. How it is loaded the teacher's settings
    say."""
    count: PositiveInteger = 1_000
    """Queries wanted."""
    kinds: dict[QueryKind, NonNegativeFloat] | None = None
    """How often each kind is wanted among those kept, {question: 2, keywords: 1}; null means as often as among the
    examples, or all of question, keywords, claim, title alike."""
    examples: str | None = None
    """A file of real queries (as --queries takes it), whose kinds say how often each is wanted."""
    prompts: dict[QueryKind, str] = {}
    """Another prompt for a kind, {question: mine.txt}: a name in prompts/, or the path of a .txt file; else
    query-KIND."""
    temperature: NonNegativeFloat = 0.7
    """Of the sampling; 0 always takes the likeliest token."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Tokens are drawn from the likeliest that hold this much of the probability."""
    max_tokens: PositiveInteger = 64
    """Tokens written at most, of which the first line counts."""
    round_trip: Literal["bm25", "student"] | None = "bm25"
    """A query is kept if this retriever finds its document again; null: none is asked. bm25 knows English best."""
    k: PositiveInteger = 20
    """Among so many."""
    least_point: float | None = None
    """A query is kept if the teacher's point label for its document is at least this; null: it is not asked."""

    @field_validator("kinds")
    @classmethod
    def _some_kind(cls, kinds: dict[QueryKind, float] | None) -> dict[QueryKind, float] | None:
        if kinds is not None and not any(kinds.values()):
            raise ValueError("no kind is wanted; give one a share above 0, or null")
        return kinds


class Recipe(Settings):
    """One run of `pdadapt adapt`, fully specified."""

    seed: Annotated[int, Field(ge=0, le=MAX_INTEGER)] = 42
    """Of every random choice: queries, pairs, batches, new weights."""
    iterations: PositiveInteger = 1
    """Rounds of retrieve, label, train; each starts from the checkpoint of the one before."""
    label_store: str | None = None
    """An SQLite file to share between runs; null means labels.sqlite in the run folder."""
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
                "there is nothing to learn: train.lambda_cl and train.lambda_kd are 0, and train.lambda_pair or "
                "teacher.pair.per_query is"
            )
        if train.kd_target == "strengths" and not self.teacher.pair.per_query:
            raise ValueError(
                "train.kd_target: strengths are fitted to pairs, and teacher.pair.per_query is 0; set it to 10, say"
            )
        return self

    @model_validator(mode="after")
    def _student_weight_has_its_scores(self) -> Recipe:
        if self.teacher.point.student_weight and "bm25" in self.retrieve.sources:
            raise ValueError(
                "teacher.point.student_weight adds the student's own scores, which candidates lack when "
                "retrieve.sources holds bm25; set it to 0, or retrieve.sources=[student]"
            )
        return self
