"""Bad recipes, settings, measures and passages."""

from functools import partial

import pytest

from bad_input.harness import ADAPT, EVALUATE, Case
from pdadapt.errors import DataError, ModelError, RecipeError

MESSAGES = "messages/recipe.txt"
MINE = ADAPT.replace("tiny", "mine")
refused = partial(Case, error=RecipeError)
CASES = {
    "recipe's name mistyped": refused(ADAPT.replace("tiny.yaml", "smal"), names="'smal' 'small'"),
    "recipe file that is not there": refused(ADAPT.replace("tiny", "no"), names="'no.yaml'"),
    "recipe that is no YAML": refused(MINE, {"mine.yaml": "a: [1\nb: 2"}, names="mine.yaml:2"),
    "recipe with a key twice": refused(
        MINE, {"mine.yaml": "base: small\ntrain: {steps: 3}\nseed: 1\ntrain: {n_way: 4}\n"}, names="mine.yaml:4 'train'"
    ),
    "recipe with a key twice in a branch": refused(
        MINE, {"mine.yaml": "base: small\ntrain:\n  steps: 3\n  steps: 4\n"}, names="mine.yaml:4 'steps'"
    ),
    "recipe that is a list": refused(MINE, {"mine.yaml": "- a\n- b\n"}, names="mine.yaml"),
    "recipe that is binary": refused(MINE, {"mine.yaml": b"\x89PNG\xff"}, names="mine.yaml"),
    "recipe with a NUL byte": refused(MINE, {"mine.yaml": "seed: 1\0\n"}, names="mine.yaml"),
    "recipe with a date that is none": refused(MINE, {"mine.yaml": "seed: 2026-99-99\n"}, names="mine.yaml month"),
    "recipe with a tag that is none": refused(MINE, {"mine.yaml": "seed: !!timestamp x\n"}, names="mine.yaml"),
    "recipe that is its own base": refused(MINE, {"mine.yaml": "base: mine.yaml\n"}, names="mine.yaml"),
    "recipe whose base is not there": refused(
        MINE, {"mine.yaml": "base: papre\n"}, names="mine.yaml base 'papre' 'paper'"
    ),
    "recipe with a key mistyped": refused(
        MINE,
        {"mine.yaml": "base: small\ntrain: {learningrate: 1}\n"},
        names="mine.yaml train.learningrate train.learning_rate",
    ),
    "recipe with a number for a key": refused(MINE, {"mine.yaml": "base: small\n1: 2\n"}, names="mine.yaml 1:"),
    "recipe with nothing for a branch": refused(
        MINE, {"mine.yaml": "base: small\ntrain:\n"}, names="mine.yaml train: train."
    ),
    "recipe that contradicts itself": refused(
        MINE,
        {"mine.yaml": "base: small\ntrain: {check_steps: 3, checks: 2}\n"},
        names="mine.yaml train checks check_steps",
    ),
    "--set that contradicts the recipe": refused(
        f"{ADAPT} --set train.check_steps=3 --set train.n_way=5", names="tiny.yaml --set train.check_steps held_out"
    ),
    "--set of a section": refused(f"{ADAPT} --set train=3", names="--set train"),
    "--set of one label word": refused(
        f"""{ADAPT} --set 'teacher.point.labels=["Yes"]'""", names="--set teacher.point.labels"
    ),
    "--set of a key mistyped": refused(f"{ADAPT} --set train.step=3", names="--set train.step: train.steps"),
    "--set of a key that is no branch": refused(f"{ADAPT} --set retrieve.k.x=3", names="--set retrieve.k.x"),
    "--set without =": refused(f"{ADAPT} --set train.steps", names="--set 'train.steps'"),
    "--set of no YAML": refused(f"{ADAPT} --set 'teacher.point.labels=[a'", names="--set 'teacher.point.labels=[a'"),
    "word for a number": refused(f"{ADAPT} --set train.steps=many", names="--set train.steps"),
    "fraction for a whole number": refused(f"{ADAPT} --set train.steps=2.5", names="--set train.steps"),
    "yes for a number": refused(f"{ADAPT} --set train.steps=yes", names="--set train.steps"),
    "list for a number": refused(f"{ADAPT} --set train.steps=[1]", names="--set train.steps"),
    "zero steps": refused(f"{ADAPT} --set train.steps=0", names="--set train.steps"),
    "negative weight": refused(f"{ADAPT} --set train.lambda_kd=-1", names="--set train.lambda_kd"),
    "NaN for a rate": refused(f"{ADAPT} --set train.learning_rate=.nan", names="--set train.learning_rate"),
    "infinite rate": refused(f"{ADAPT} --set train.learning_rate=.inf", names="--set train.learning_rate"),
    "warm-up beyond the run": refused(f"{ADAPT} --set train.warmup=2", names="--set train.warmup"),
    "rate of more than 1": refused(f"{ADAPT} --set train.learning_rate=3e6", names="--set train.learning_rate"),
    "seed below 0": refused(f"{ADAPT} --set seed=-1", names="--set seed"),
    "seed that nothing counts to": refused(f"{ADAPT} --set seed=99999999999999999999", names="--set seed"),
    "batch that nothing counts to": refused(
        f"{ADAPT} --set train.batch_size=99999999999999999999", names="--set train.batch_size"
    ),
    "query of special tokens only": refused(
        f"{ADAPT} --set student.query_length=3", names="--set student.query_length"
    ),
    "prompt of one token": refused(f"{ADAPT} --set teacher.max_length=1", names="teacher.max_length"),
    "one candidate a query": refused(f"{ADAPT} --set retrieve.k=1", names="--set retrieve.k"),
    "window with no pair inside": refused(f"{ADAPT} --set teacher.pair.window=1", names="--set teacher.pair.window"),
    "nothing to learn": refused(
        f"{ADAPT} --set train.lambda_kd=0 --set teacher.pair.per_query=0",
        names="tiny.yaml --set train.lambda_kd teacher.pair.per_query train.lambda_cl",
    ),
    "label words that YAML reads as true and false": refused(
        f"{ADAPT} --set 'teacher.point.labels=[Yes, No]'", names="--set teacher.point.labels"
    ),
    "label word of two tokens": refused(
        f"""{ADAPT} --set 'teacher.point.labels=["Yes Yes", "No"]'""", names="teacher.point.labels", error=ModelError
    ),
    "label words that are one": refused(
        f"""{ADAPT} --set 'teacher.point.labels=["No", "No"]'""", names="teacher.point.labels 'No'", error=ModelError
    ),
    "engine that does not exist": refused(f"{ADAPT} --set retrieve.engine=lucene", names="--set retrieve.engine"),
    "engine for another kind of student": refused(
        f"{EVALUATE} --set retrieve.engine=faiss", names="retrieve.engine=faiss", error=ModelError
    ),
    "engine that is not set up": refused(
        f"{ADAPT} --set retrieve.engine=plaid", names="retrieve.engine=plaid setup-plaid", error=ModelError
    ),
    "source of candidates that is none": refused(
        f"{ADAPT} --set retrieve.sources=[bm52]", names="--set retrieve.sources.0"
    ),
    "no source of candidates": refused(f"{ADAPT} --set retrieve.sources=[]", names="--set retrieve.sources"),
    "source of candidates twice": refused(
        f"{ADAPT} --set retrieve.sources=[bm25,bm25]", names="--set retrieve.sources"
    ),
    "source of candidates without the retriever": refused(
        f"{ADAPT} --set retrieve.sources=[bm25] --set retrieve.model=./encoder",
        names="tiny.yaml --set retrieve.sources retrieve.model",
    ),
    "student's scores where BM25's candidates have none": refused(
        f"{ADAPT} --set retrieve.sources=[student,bm25] --set teacher.point.student_weight=1",
        names="tiny.yaml --set retrieve.sources teacher.point.student_weight",
    ),
    "projection of a dense student": refused(
        f"{ADAPT} --set student.kind=dense --set train.layers=0", names="tiny.yaml --set train.layers"
    ),
    "more layers than the student has": refused(
        f"{ADAPT} --set train.layers=99", names="train.layers=99", error=RecipeError
    ),
    "index that faiss does not know": refused(
        f"{ADAPT} --set student.kind=dense --set retrieve.engine=faiss --set retrieve.faiss=Nonsense",
        names="retrieve.faiss 'Nonsense'",
        error=ModelError,
    ),
    "no measure": refused(f"{ADAPT} --set evaluate.measures=[]", names="--set evaluate.measures"),
    "measure mistyped": refused(f"{EVALUATE} --measures nDGC@10", names="evaluate.measures 'nDGC@10'"),
    "measure at rank 0": refused(f"{EVALUATE} --measures nDCG@0", names="evaluate.measures 'nDCG@0'"),
    "measure with a parameter that it has not": refused(
        f"{EVALUATE} --measures 'nDCG(x=3)@5'", names="evaluate.measures 'nDCG(x=3)@5'"
    ),
    "measure with a parameter that is none": refused(
        f"{EVALUATE} --measures 'RBP(p=2)'", names="evaluate.measures 'RBP(p=2)'"
    ),
    "measure of answers where there are none": refused(f"{EVALUATE} --measures Answer@5", names="'Answer@5'"),
    "recipe to show that is not there": refused("recipes show smal", names="'smal' 'small'"),
    "recipe to show that is binary": refused("recipes show x.yaml", {"x.yaml": b"\xff"}, names="x.yaml"),
    "recipe copied onto a file": refused("recipes copy small tiny.yaml", names="tiny.yaml"),
    "passages of nonsense": refused(f"{ADAPT} --passages long", names="--passages 'long'", error=DataError),
    "passages that overlap whole": refused(
        f"{ADAPT} --passages words=5,overlap=5", names="--passages", error=DataError
    ),
    "passages of no words": refused(f"{EVALUATE} --passages words=0", names="--passages 'words=0'", error=DataError),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_sentence_and_nothing_changes(name, command_line, golden):
    command_line.refuses(CASES[name], golden(MESSAGES), name)


def test_each_message_has_a_case(golden):
    golden(MESSAGES).check_names(CASES)
