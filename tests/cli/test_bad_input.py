"""Bad input, by the command line: one sentence with the way out, exit code 1 or 2, and nothing changed on disk."""

# ruff: noqa: E501  (a case is a line)

import contextlib
import gzip
import hashlib
import json
import os
import re
import shlex
import shutil
import socketserver
import sqlite3
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from pdadapt.cli import main
from pdadapt.data.load import load_dataset
from pdadapt.pipeline import adapt
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe
from pdadapt.teachers import servers
from pdadapt.teachers.language_model import load_tokenizer

RECIPE = """
student: {model: ./encoder}
teacher:
  model: ./llama
  dtype: float32
  max_length: 256
  batch_tokens: 256
  pair: {per_query: 4, window: 4}
reranker: {model: ./encoder}
retrieve: {k: 8, batch_tokens: 64}
train: {batch_size: 4, n_way: 6, steps: 1, learning_rate: 1.0e-3, held_out: 0}
evaluate: {k: 10, resamples: 200, general: false}
"""
ADAPT = "adapt --corpus data --recipe tiny.yaml --out out"
OF_RUN = "adapt --corpus data --recipe tiny.yaml --out run"
EVALUATE = "evaluate --corpus data --model ./encoder --no-bm25 --out out"
RUNS = "evaluate --run mine.run --qrels data/qrels/test.tsv --out out"
IMPORT = "labels import l.jsonl --store labels.sqlite --name expert"
RERANK = "rerank --corpus data --recipe tiny.yaml --run mine.run --out out.run"
LABEL = '{"query": "q", "document": "d", "score": 1}\n'
ONE_RUN = "q12 Q0 d0 1 2.0 x\n"


def cut(content):
    """A file whose download broke off."""
    return content[: len(content) // 2]


def more(text):
    """The file with another line."""
    return lambda content: content + text.encode() + b"\n"


def query(**fields):
    return {"data/queries.jsonl": more(json.dumps({"_id": "q90", "text": "rim", **fields}))}


def document(**fields):
    return {"data/corpus.jsonl": more(json.dumps({"_id": "d90", "text": "rim", **fields}))}


def corpus(*texts):
    rows = (json.dumps({"_id": f"d{number}", "text": text}) + "\n" for number, text in enumerate(texts))
    return {"data/corpus.jsonl": "".join(rows)}


def other_corpus(name, content):
    return {"data/corpus.jsonl": None, f"data/{name}": content}


def recipe(text):
    return {"mine.yaml": text}, ADAPT.replace("tiny", "mine")


def prompt(text):
    return {"own.txt": text}, f"{ADAPT} --set teacher.point.prompt=own.txt"


def gguf(architecture):
    """A GGUF file of no tensor and one key."""
    key, value = b"general.architecture", architecture.encode()
    text = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text


CORPORA = {
    "corpus that is not there": ({}, "adapt --corpus nowhere.jsonl --recipe tiny.yaml", "'nowhere.jsonl' was not found: give"),
    "corpus without a name": ({}, "adapt --corpus '' --recipe tiny.yaml --out out", "Corpus '' was not found: give"),
    "corpus' name mistyped": ({}, "adapt --corpus scifcat --recipe tiny.yaml", r"was not found: give .* \(.*scifact"),
    "corpus whose name is too long": ({}, ADAPT.replace("data", "a" * 300), r"Corpus 'a+' was not found: give"),
    "corpus that is licensed": ({}, ADAPT.replace("data", "bioasq"), "'bioasq' is licensed, .*; bring it into a folder"),
    "dataset that the hub does not have": ({}, ADAPT.replace("data", "hf:nowhere/none"), r"hf:nowhere/none: the dataset cannot be had \(.*\); hf:NAME:CONFIG@SPLIT names it"),
    "corpus of another format": ({"a.docx": "x"}, ADAPT.replace("data", "a.docx"), r"a\.docx: cannot tell the format of \.docx; use \.jsonl"),
    "folder without documents": ({"empty/x.pdf": "x"}, ADAPT.replace("data", "empty"), r"empty has no corpus\.jsonl: a BEIR folder holds"),
    "folder with a binary text file": ({"notes/a.txt": b"\xff\xfe\x00"}, ADAPT.replace("data", "notes"), r"notes/a\.txt begins like UTF-16 text, but is none .*; write it anew"),
    "folder with NUL in a text file": ({"notes/a.txt": "a\0"}, ADAPT.replace("data", "notes"), r"notes/a\.txt: holds a NUL byte: convert"),
    "empty corpus": ({"data/corpus.jsonl": ""}, ADAPT, r"corpus\.jsonl holds no documents; give"),
    "binary corpus": ({"data/corpus.jsonl": b"\x89PNG\xff"}, ADAPT, r"corpus\.jsonl:1: not UTF-8 text .*; convert"),
    "corpus in Latin-1": ({"data/corpus.jsonl": lambda old: old + '{"_id": "x", "text": "Öl"}'.encode("latin-1")}, ADAPT, r"corpus\.jsonl:21: not UTF-8 text .*; convert it, .* \(iconv -f latin1 -t utf-8 data/corpus\.jsonl > NEW\)\."),
    "corpus in UTF-16 without a mark": (other_corpus("corpus.tsv", "d1\trim\nd2\tpad\n".encode("utf-16-le")), ADAPT, r"corpus\.tsv:1: holds a NUL byte: convert the file to UTF-8"),
    "truncated gzip": (other_corpus("corpus.jsonl.gz", cut(gzip.compress(b'{"_id": "d1", "text": "rim"}'))), ADAPT, r"corpus\.jsonl\.gz cannot be read as gzip \(.*\); fetch"),
    "gzip that is none": (other_corpus("corpus.jsonl.gz", "{}"), ADAPT, r"corpus\.jsonl\.gz cannot be read as gzip \(Not a gzipped file.*\); fetch"),
    "gzip of another encoding": (other_corpus("corpus.jsonl.gz", gzip.compress(b"\xff")), ADAPT, r"corpus\.jsonl\.gz:1: not UTF-8 text .*; convert it, .* \(gunzip -c data/corpus\.jsonl\.gz \| iconv -f latin1 .*\)\."),
    "broken JSON": ({"data/corpus.jsonl": more('{"_id": "x"')}, ADAPT, r"corpus\.jsonl:21: not valid JSON \(.*\); one object a line"),
    "JSON array": ({"data/corpus.jsonl": more('[{"_id": "x"}]')}, ADAPT, r"corpus\.jsonl:21: expected a JSON object, and found a list; write one"),
    "JSON number without end": ({"data/corpus.jsonl": more('{"_id": ' + "1" * 5_000 + "}")}, ADAPT, r"corpus\.jsonl:21: not valid JSON \(.*\); one object"),
    "JSON too deep": ({"data/corpus.jsonl": more('{"_id": ' + "[" * 99_999)}, ADAPT, r"corpus\.jsonl:21: not valid JSON \(.*\); one object"),
    "document id twice": (document(_id="d3"), ADAPT, r"corpus\.jsonl:21: the document id 'd3' stands twice; remove or rename"),
    "document without an id": (document(_id=""), ADAPT, r"corpus\.jsonl:21: the document has no id; name it in a field `_id`"),
    "document without a text": ({"data/corpus.jsonl": more('{"_id": "d90", "title": "rim"}')}, ADAPT, r"corpus\.jsonl:21: no text; name it in a field `text`"),
    "document whose text is a number": (document(text=42), ADAPT, r"corpus\.jsonl:21: `text` is no text but a number; write it as a text, in quotes"),
    "document whose text is a list": (document(text=["rim"]), ADAPT, r"corpus\.jsonl:21: `text` is no text but a list; write it"),
    "document whose text is true": (document(text=True), ADAPT, r"corpus\.jsonl:21: `text` is no text but true or false; write it"),
    "JSON with a raw NUL byte": ({"data/corpus.jsonl": more('{"_id": "x", "text": "a\0b"}')}, ADAPT, r"corpus\.jsonl:21: holds a NUL byte: .* remove it"),
    "id with a space": (document(_id="a b"), ADAPT, r"corpus\.jsonl:21: the id 'a b' holds white space, .*; put `_`"),
    "id with a tab": (document(_id="a\tb"), ADAPT, r"the id 'a\\tb' holds white space, .*; put `_`"),
    "id with a newline": (document(_id="a\nb"), ADAPT, r"the id 'a\\nb' holds white space, .*; put `_`"),
    "id with a NUL byte": (document(_id="a\0b"), ADAPT, r"corpus\.jsonl:21: holds a NUL byte: .* remove it"),
    "id that is a list": (document(_id=["a"]), ADAPT, r"corpus\.jsonl:21: the id of the document is neither .*; write it as a text"),
    "id that is a fraction": (document(_id=1.0), ADAPT, r"the id of the document is neither a text nor a whole number; write"),
    "text with a NUL byte": (document(text="a\0b"), ADAPT, r"corpus\.jsonl:21: holds a NUL byte: .* remove it"),
    "text with half a letter": (document(text="\ud83d"), ADAPT, r"corpus\.jsonl:21: holds half of a surrogate pair .*; remove it"),
    "title that is a list": (document(title=["a"]), ADAPT, r"corpus\.jsonl:21: the title is no text; write"),
    "document of 50 MB": (document(text="rim " * 12_500_000), ADAPT, r"corpus\.jsonl:21: 50,000,000 characters in one text, and at most 10,000,000 are read; split it"),
    "TSV without a tab": (other_corpus("corpus.tsv", "d1\trim\nd2\n"), ADAPT, r"corpus\.tsv:2: expected id<TAB>text, .*; put one"),
    "TSV with a column too many": (other_corpus("corpus.tsv", "d1\trim\tRim\nd2\ta url\tPad\tpad\n"), ADAPT, r"corpus\.tsv:2: expected id<TAB>text\[<TAB>title\], and found 4 columns; remove the others"),
    "CSV without a header": (other_corpus("corpus.csv", "d1,rim\nd2,pad\n"), ADAPT, r"corpus\.csv:1: a CSV file needs a header .*; add one"),
    "CSV with a quote left open": (other_corpus("corpus.csv", 'id,text\nd1,"rim\nd2,pad\n'), ADAPT, r"corpus\.csv:2: not valid CSV .*; a quote"),
    "CSV with more fields than its header": (other_corpus("corpus.csv", "id,text\nd1,rim,pad\n"), ADAPT, r"corpus\.csv:2: more fields than the header has; quote"),
    "Parquet that is none": (other_corpus("corpus.parquet", b"PAR1 no"), ADAPT, r"corpus\.parquet cannot be read as Parquet \(.*\); write the file anew"),
    "corpus of one document": (corpus("rim spoke"), f"{ADAPT} --queries data/queries.jsonl", "holds no two documents that differ, so there is no order to learn; give more"),
    "documents that are all the same": (corpus(*["rim spoke"] * 9), ADAPT, "holds no two documents that differ, .*; give more"),
    "documents that are all blank": (corpus("", " ", "\n"), ADAPT, "holds no documents that are not blank; give the file that does"),
}  # fmt: skip

QUERIES = {
    "queries that are not there": ({}, f"{ADAPT} --queries no.txt", r"File no\.txt was not found; check its name"),
    "queries whose name is too long": ({}, f"{ADAPT} --queries {'q' * 300}.txt", r"File q+\.txt was not found; check its name"),
    "queries that are a folder": ({"q.txt/x": ""}, f"{ADAPT} --queries q.txt", r"q\.txt is a folder; give a file"),
    "queries of another format": ({"q.docx": "rim"}, f"{ADAPT} --queries q.docx", r"q\.docx: cannot tell the format of \.docx; use \.txt, \.jsonl"),
    "queries that are a folder without an ending": ({}, f"{ADAPT} --queries data", "data is a folder; give a file"),
    "queries with a column too many": ({"q.tsv": "q1\trim\nq2\t2026\tpad\n"}, f"{ADAPT} --queries q.tsv", r"q\.tsv:2: expected id<TAB>text, and found 3 columns; remove the others"),
    "empty queries": ({"q.txt": "\n\n"}, f"{ADAPT} --queries q.txt", r"q\.txt holds no queries; give"),
    "binary queries": ({"q.txt": b"\x89PNG\xff"}, f"{ADAPT} --queries q.txt", r"q\.txt:1: not UTF-8 text .*; convert"),
    "query with a NUL byte": ({"q.txt": "rim\npad\0\n"}, f"{ADAPT} --queries q.txt", r"q\.txt:2: holds a NUL byte: convert"),
    "query id twice": (query(_id="q3"), ADAPT, r"queries\.jsonl:19: the query id 'q3' stands twice; remove or rename"),
    "query without a text": ({"data/queries.jsonl": more('{"_id": "q90"}')}, ADAPT, r"queries\.jsonl:19: no text; name it"),
    "queries that are all blank": ({"q.jsonl": '{"_id": "q1", "text": " "}'}, f"{ADAPT} --queries q.jsonl", r"q\.jsonl holds no queries that are not blank; give the file that does"),
    "no queries, and nothing to write some about": ({"c.jsonl": document()["data/corpus.jsonl"](b'{"_id": "d", "text": "pad"}\n')}, ADAPT.replace("data", "c.jsonl"), r"No document of the corpus is one to write queries about \(.*too short\); bring queries with --queries FILE"),
    "no queries to plan with, and nothing to write some about": ({"c.jsonl": document()["data/corpus.jsonl"](b'{"_id": "d", "text": "pad"}\n')}, f"{ADAPT.replace('data', 'c.jsonl')} --plan", r"No document of the corpus is one to write queries about \(.*too short\); bring queries with --queries FILE"),
    "query longer than the teacher reads": ({"q.txt": "rim " * 500}, f"{ADAPT} --queries q.txt", r"teacher\.max_length 256 leaves no room .*; raise it with --set teacher\.max_length=1024"),
}  # fmt: skip

QRELS = {
    "qrels of other queries": ({"data/qrels/test.tsv": "x1\td1\t1\n"}, ADAPT, r"test\.tsv names none of the queries; check its query ids"),
    "qrels of other documents": ({"data/qrels/test.tsv": "q12\tx1\t1\n"}, ADAPT, r"test\.tsv names none of the documents; check its document ids"),
    "grade that is a word": ({"data/qrels/test.tsv": more("q12\td1\thigh")}, ADAPT, r"test\.tsv:32: expected a whole number as the score, and found 'high'; write a grade"),
    "grade that is a fraction": ({"data/qrels/test.tsv": more("q12\td1\t0.5")}, ADAPT, r"test\.tsv:32: expected .* whole number"),
    "grade that only looks like a digit": ({"data/qrels/test.tsv": more("q12\td1\t²")}, ADAPT, r"test\.tsv:32: expected .* whole number"),
    "grade with two signs": ({"data/qrels/test.tsv": more("q12\td1\t--1")}, ADAPT, r"test\.tsv:32: expected .* whole number"),
    "judgment without a grade": ({"data/qrels/test.tsv": more("q12\td1")}, ADAPT, r"test\.tsv:32: expected `query-id corpus-id score`"),
    "empty qrels": ({"data/qrels/test.tsv": "query-id\tcorpus-id\tscore\n"}, ADAPT, r"test\.tsv holds no judgments; give"),
    "binary qrels": ({"data/qrels/test.tsv": b"\xff\xfeq"}, ADAPT, r"test\.tsv begins like UTF-16 text, but is none .*; write it anew"),
    "qrels that are not there": ({}, f"{EVALUATE} --qrels no.txt", r"File no\.txt was not found; check its name"),
    "split that is not there": ({}, f"{EVALUATE} --split dev", r"data has no judgments for split 'dev', but for test; give one of these as --split"),
    "qrels for a corpus without queries": ({"c.jsonl": '{"_id": "d", "text": "pad"}\n'}, f"{EVALUATE.replace('data', 'c.jsonl')} --qrels data/qrels/test.tsv", r"brings no queries that data/qrels/test\.tsv could judge; give --queries"),
}  # fmt: skip

RECIPES = {
    "recipe's name mistyped": ({}, ADAPT.replace("tiny.yaml", "smal"), r"'smal' was not found \(did you mean 'small'\?\): give"),
    "recipe file that is not there": ({}, ADAPT.replace("tiny", "no"), r"'no\.yaml' was not found: give a \.yaml file or one of"),
    "recipe that is no YAML": (*recipe("a: [1\nb: 2"), r"mine\.yaml:2: not valid YAML \(.*\); quote"),
    "recipe with a key twice": (*recipe("base: small\ntrain: {steps: 3}\nseed: 1\ntrain: {n_way: 4}\n"), r"mine\.yaml:4: not valid YAML \(the key 'train' stands twice\); remove one"),
    "recipe with a key twice in a branch": (*recipe("base: small\ntrain:\n  steps: 3\n  steps: 4\n"), r"mine\.yaml:4: not valid YAML \(the key 'steps' stands twice\); remove one"),
    "recipe that is a list": (*recipe("- a\n- b\n"), r"mine\.yaml: a recipe is keys with their values, and not a list; write"),
    "recipe that is binary": (*recipe(b"\x89PNG\xff"), r"mine\.yaml cannot be read as UTF-8 text \(.*\); give another file"),
    "recipe with a NUL byte": (*recipe("seed: 1\0\n"), r"mine\.yaml: not valid YAML \(.*\); quote"),
    "recipe with a date that is none": (*recipe("seed: 2026-99-99\n"), r"mine\.yaml: not valid YAML \(month .*\); quote"),
    "recipe with a tag that is none": (*recipe("seed: !!timestamp x\n"), r"mine\.yaml: not valid YAML \(.*\); quote"),
    "recipe that is its own base": (*recipe("base: mine.yaml\n"), r"mine\.yaml: is its own `base`, by way of mine\.yaml; name another"),
    "recipe whose base is not there": (*recipe("base: papre\n"), r"mine\.yaml: base: recipe 'papre' was not found \(did you mean 'paper'\?\)"),
    "recipe with a key mistyped": (*recipe("base: small\ntrain: {learningrate: 1}\n"), r"mine\.yaml: train\.learningrate: unknown key \(did you mean train\.learning_rate\?\)"),
    "recipe with a number for a key": (*recipe("base: small\n1: 2\n"), r"mine\.yaml: 1: .*string"),
    "recipe with nothing for a branch": (*recipe("base: small\ntrain:\n"), r"mine\.yaml: train: is a section, and not a value \(got None\); set its keys, such as train\.\w+"),
    "recipe that contradicts itself": (*recipe("base: small\ntrain: {check_steps: 3, checks: 2}\n"), r"mine\.yaml: train: checks and check_steps both say when to check; set one of them to null"),
    "--set that contradicts the recipe": ({}, f"{ADAPT} --set train.check_steps=3 --set train.n_way=5", r"tiny\.yaml with --set train\.check_steps: train: check_steps needs queries held out; set held_out"),
    "--set of a section": ({}, f"{ADAPT} --set train=3", r"--set train: is a section, and not a value \(got 3\); set its keys, such as train\.\w+"),
    "--set of one label word": ({}, f"""{ADAPT} --set 'teacher.point.labels=["Yes"]'""", r"--set teacher\.point\.labels: two words are wanted, as in"),
    "--set of a key mistyped": ({}, f"{ADAPT} --set train.step=3", r"--set train\.step: unknown key \(did you mean train\.steps\?\)"),
    "--set of a key that is no branch": ({}, f"{ADAPT} --set retrieve.k.x=3", r"--set retrieve\.k\.x: 'k' holds a value, not further keys; set"),
    "--set without =": ({}, f"{ADAPT} --set train.steps", r"--set 'train\.steps': expected key=value, for example"),
    "--set of no YAML": ({}, f"{ADAPT} --set 'teacher.point.labels=[a'", r"--set 'teacher\.point\.labels=\[a': not valid YAML \(.*\); quote"),
    "word for a number": ({}, f"{ADAPT} --set train.steps=many", r"--set train\.steps: Input should be a valid integer, .* \(got 'many'\)"),
    "fraction for a whole number": ({}, f"{ADAPT} --set train.steps=2.5", r"--set train\.steps: Input should be a valid integer, .* \(got 2\.5\)"),
    "yes for a number": ({}, f"{ADAPT} --set train.steps=yes", r"--set train\.steps: YAML reads yes, no, on and off as true and false; quote"),
    "list for a number": ({}, f"{ADAPT} --set train.steps=[1]", r"--set train\.steps: Input should be a valid integer \(got \[1\]\)"),
    "zero steps": ({}, f"{ADAPT} --set train.steps=0", r"--set train\.steps: Input should be greater than 0 \(got 0\)"),
    "negative weight": ({}, f"{ADAPT} --set train.lambda_kd=-1", r"--set train\.lambda_kd: Input should be greater than or equal to 0"),
    "NaN for a rate": ({}, f"{ADAPT} --set train.learning_rate=.nan", r"--set train\.learning_rate: Input should be a finite number \(got nan\)"),
    "infinite rate": ({}, f"{ADAPT} --set train.learning_rate=.inf", r"--set train\.learning_rate: Input should be a finite number \(got inf\)"),
    "warm-up beyond the run": ({}, f"{ADAPT} --set train.warmup=2", r"--set train\.warmup: Input should be less than or equal to 1 \(got 2\)"),
    "rate of more than 1": ({}, f"{ADAPT} --set train.learning_rate=3e6", r"--set train\.learning_rate: Input should be less than or equal to 1"),
    "seed below 0": ({}, f"{ADAPT} --set seed=-1", r"--set seed: Input should be greater than or equal to 0 \(got -1\)"),
    "seed that nothing counts to": ({}, f"{ADAPT} --set seed=99999999999999999999", r"--set seed: Input should be less than or equal to 2147483647"),
    "batch that nothing counts to": ({}, f"{ADAPT} --set train.batch_size=99999999999999999999", r"--set train\.batch_size: Input should be less than or equal to 2147483647"),
    "query of special tokens only": ({}, f"{ADAPT} --set student.query_length=3", r"--set student\.query_length: Input should be greater than 3 \(got 3\)"),
    "prompt of one token": ({}, f"{ADAPT} --set teacher.max_length=1", r"teacher\.max_length 1 leaves no room .*; raise it with --set teacher\.max_length=32"),
    "one candidate a query": ({}, f"{ADAPT} --set retrieve.k=1", r"--set retrieve\.k: Input should be greater than 1 \(got 1\)"),
    "window with no pair inside": ({}, f"{ADAPT} --set teacher.pair.window=1", r"--set teacher\.pair\.window: Input should be greater than 1 \(got 1\)"),
    "nothing to learn": ({}, f"{ADAPT} --set train.lambda_kd=0 --set teacher.pair.per_query=0", r"tiny\.yaml with --set train\.lambda_kd, teacher\.pair\.per_query: recipe: there is nothing to learn: train\.lambda_cl and"),
    "label words that YAML reads as true and false": ({}, f"{ADAPT} --set 'teacher.point.labels=[Yes, No]'", r"--set teacher\.point\.labels: YAML reads Yes and No .*; quote them"),
    "label word of two tokens": ({}, f"""{ADAPT} --set 'teacher.point.labels=["Yes Yes", "No"]'""", "must be single, distinct tokens .*; choose other words"),
    "label words that are one": ({}, f"""{ADAPT} --set 'teacher.point.labels=["No", "No"]'""", "must be single, distinct tokens .*; choose other words"),
    "engine that does not exist": ({}, f"{ADAPT} --set retrieve.engine=lucene", r"--set retrieve\.engine: Input should be 'exact', .* \(got 'lucene'\)"),
    "engine for another kind of student": ({}, f"{EVALUATE} --set retrieve.engine=faiss", "this student has many vectors a text; use exact, plaid or colbert"),
    "engine that is not set up": ({}, f"{ADAPT} --set retrieve.engine=plaid", "run `pdadapt setup-plaid`"),
    "source of candidates that is none": ({}, f"{ADAPT} --set retrieve.sources=[bm52]", r"--set retrieve\.sources\.0: Input should be 'student' or 'bm25' \(got 'bm52'\)"),
    "no source of candidates": ({}, f"{ADAPT} --set retrieve.sources=[]", r"--set retrieve\.sources: Tuple should have at least 1 item"),
    "source of candidates twice": ({}, f"{ADAPT} --set retrieve.sources=[bm25,bm25]", r"--set retrieve\.sources: a source stands twice; give each once"),
    "source of candidates without the retriever": ({}, f"{ADAPT} --set retrieve.sources=[bm25] --set retrieve.model=./encoder", r"retrieve: model retrieves for the source student, which sources lack; add it, or set model=null"),
    "student's scores where BM25's candidates have none": ({}, f"{ADAPT} --set retrieve.sources=[student,bm25] --set teacher.point.student_weight=1", r"tiny\.yaml with --set retrieve\.sources, teacher\.point\.student_weight: recipe: teacher\.point\.student_weight adds the student's own scores, .*; set it to 0, or retrieve\.sources=\[student\]"),
    "index that faiss does not know": ({}, f"{ADAPT} --set student.kind=dense --set retrieve.engine=faiss --set retrieve.faiss=Nonsense", r"faiss knows no index 'Nonsense' of 32 dimensions \(.*\); take Flat"),
    "no measure": ({}, f"{ADAPT} --set evaluate.measures=[]", r"--set evaluate\.measures: Tuple should have at least 1 item"),
    "measure mistyped": ({}, f"{EVALUATE} --measures nDGC@10", r"evaluate\.measures: 'nDGC@10' is not a measure of ir-measures, such as"),
    "measure at rank 0": ({}, f"{EVALUATE} --measures nDCG@0", r"evaluate\.measures: 'nDCG@0' looks at no document; give a rank"),
    "measure with a parameter that it has not": ({}, f"{EVALUATE} --measures 'nDCG(x=3)@5'", r"evaluate\.measures: 'nDCG\(x=3\)@5' cannot be computed \(.*\); leave it out"),
    "measure with a parameter that is none": ({}, f"{EVALUATE} --measures 'RBP(p=2)'", r"evaluate\.measures: 'RBP\(p=2\)' cannot be computed \(.*\); leave it out"),
    "measure of answers where there are none": ({}, f"{EVALUATE} --measures Answer@5", "'Answer@5' needs a corpus with answers, such as"),
    "recipe to show that is not there": ({}, "recipes show smal", "did you mean 'small'"),
    "recipe to show that is binary": ({"x.yaml": b"\xff"}, "recipes show x.yaml", r"x\.yaml cannot be read as UTF-8 text \(.*\); give another file"),
    "recipe copied onto a file": ({}, "recipes copy small tiny.yaml", r"tiny\.yaml exists already; give another name"),
    "prompt without a placeholder": (*prompt("Relevant? {query}"), r"own\.txt: the prompt must hold \{document\}, \{query\}, each once and no other; it holds \{query\}"),
    "prompt with an unknown placeholder": (*prompt("{query} {document} {title}"), r"own\.txt: the prompt must hold .*; it holds \{query\}, \{document\}, \{title\}"),
    "prompt with a placeholder twice": (*prompt("{query} {document} {query}"), r"own\.txt: the prompt must hold .*; it holds \{query\}, \{document\}, \{query\}"),
    "prompt that is empty": (*prompt(""), r"own\.txt: the prompt must hold .*; it holds none"),
    "prompt that is binary": (*prompt(b"\x89PNG\xff"), r"own\.txt cannot be read as UTF-8 text \(.*\); give another file"),
    "prompt that is not there": ({}, f"{ADAPT} --set teacher.pair.prompt=no.txt", r"Prompt 'no\.txt' was not found: give the path of a \.txt file or one of"),
    "passages of nonsense": ({}, f"{ADAPT} --passages long", "--passages 'long': expected words=N,overlap=M .*, as words=180"),
    "passages that overlap whole": ({}, f"{ADAPT} --passages words=5,overlap=5", "--passages .*: expected words=N,overlap=M with M less than N"),
    "passages of no words": ({}, f"{EVALUATE} --passages words=0", "--passages 'words=0': expected"),
}  # fmt: skip

MODELS = {
    "student that is not there": ({}, f"{ADAPT} --student ./no", r"Model './no': no is neither a folder nor a \.gguf file"),
    "student of a package that is not there": ({}, f"{ADAPT} --student package:no_such/x", "'no_such' is not installed; run `pip install no-such`"),
    "student of the hub, without a network": ({}, f"{ADAPT} --student x/nope", r"not in the local cache .*\. Fetch it where there is a network with `hf download x/nope --include"),
    "student that is a GGUF file": ({"x.gguf": gguf("llama")}, f"{ADAPT} --student ./x.gguf", r"'./x\.gguf' is a GGUF file, which cannot be a student; give an encoder's folder"),
    "student without config.json": ({"encoder/config.json": None}, ADAPT, r"has no config\.json in encoder; give the folder"),
    "student with a broken config.json": ({"encoder/config.json": cut}, ADAPT, r"encoder/config\.json is not valid JSON \(.*\); fetch it anew"),
    "student whose config.json is a list": ({"encoder/config.json": "[]"}, ADAPT, r"encoder/config\.json holds a list where a dict is expected; fetch"),
    "student of an unknown architecture": ({"encoder/config.json": '{"model_type": "zebra"}'}, ADAPT, r"Student './encoder' does not load \(.*zebra.*\); give another model"),
    "student of other sizes than its weights": ({"encoder/config.json": lambda old: old.replace(b'"hidden_size": 32', b'"hidden_size": 64')}, ADAPT, r"Student './encoder' does not load \(.*\); give another model"),
    "student without a tokenizer": (dict.fromkeys(["encoder/tokenizer.json", "encoder/tokenizer_config.json", "encoder/vocab.txt"]), ADAPT, r"'./encoder' has no tokenizer \(tokenizer\.json\) in encoder; put it there"),
    "student with a broken tokenizer": ({"encoder/tokenizer.json": cut}, ADAPT, r"Student './encoder' does not load \(.*\); give another model"),
    "student without weights": ({"encoder/model.safetensors": None}, ADAPT, r"'./encoder' has no weights \(\*\.safetensors\) in encoder; put them there"),
    "student with truncated weights": ({"encoder/model.safetensors": cut}, ADAPT, r"encoder/model\.safetensors is missing or damaged \(.*\); fetch it anew"),
    "student with empty weights": ({"encoder/model.safetensors": ""}, ADAPT, r"encoder/model\.safetensors is missing or damaged \(.*\); fetch it anew"),
    "student that lacks a part of its weights": ({"encoder/model.safetensors": None, "encoder/model.safetensors.index.json": '{"weight_map": {"a": "model-2.safetensors"}}'}, ADAPT, r"encoder/model-2\.safetensors is missing or damaged \(.*\); fetch"),
    "student in pickles": ({"encoder/model.safetensors": None, "encoder/pytorch_model.bin": b"\x80"}, ADAPT, r"holds pickled weights \(pytorch_model\.bin\), .*\. Convert them with `pdadapt convert \./encoder FOLDER`"),
    "student with fewer positions than asked": ({}, f"{ADAPT} --set train.document_length=9999", "The student reads at most 512 tokens; lower"),
    "student with fewer dimensions than asked": ({}, f"{ADAPT} --set student.projection=64", r"student\.projection 64 exceeds the encoder's 32 dimensions; lower it"),
    "retriever with truncated weights": ({"other/config.json": "{}", "other/tokenizer.json": "{}", "other/model.safetensors": "x"}, f"{ADAPT} --set retrieve.model=./other", r"other/model\.safetensors is missing or damaged"),
    "teacher without config.json": ({"llama/config.json": None}, ADAPT, r"has no config\.json in llama; give the folder"),
    "teacher with a broken config.json": ({"llama/config.json": cut}, ADAPT, r"llama/config\.json is not valid JSON \(.*\); fetch it anew"),
    "teacher of no kind": ({"llama/config.json": "{}"}, ADAPT, r"its configuration does not say .*; say it with --set teacher\.kind=KIND"),
    "teacher of another kind than said": ({}, f"{ADAPT} --set teacher.kind=seq2seq", r"is no seq2seq model .*; leave teacher\.kind out"),
    "teacher without a tokenizer": (dict.fromkeys(["llama/tokenizer.json", "llama/tokenizer_config.json"]), ADAPT, r"'./llama' has no tokenizer \(tokenizer\.json\) in llama; put it there"),
    "teacher with a broken tokenizer": ({"llama/tokenizer.json": cut}, ADAPT, r"The tokenizer of teacher './llama' does not load \(.*\); give another model"),
    "teacher without weights": ({"llama/model.safetensors": None}, ADAPT, r"'./llama' has no weights .* in llama; put them there"),
    "teacher with truncated weights": ({"llama/model.safetensors": cut}, ADAPT, r"llama/model\.safetensors is missing or damaged \(.*\); fetch it anew"),
    "teacher in pickles": ({"llama/model.safetensors": None, "llama/pytorch_model.bin": b"\x80"}, ADAPT, r"holds pickled weights .*\. Convert them with `pdadapt convert \./llama FOLDER`"),
    "teacher that judges points only": ({}, f"{ADAPT} --teacher ./encoder", r"judges documents one by one only; pairs need .*--pair-teacher"),
    "teacher in bits without a GPU": ({}, f"{ADAPT} --set teacher.quantize=8bit", r"teacher\.quantize=8bit needs a GPU .*; leave it out"),
    "GGUF of an unknown kind": ({"x.gguf": gguf("zebra")}, f"{ADAPT} --teacher ./x.gguf", r"teacher './x\.gguf' does not load .*zebra is not supported yet\); give another model"),
    "GGUF that is none": ({"x.gguf": b"\x89PNG" * 99}, f"{ADAPT} --teacher ./x.gguf", r"teacher './x\.gguf' does not load .*magic.*\); give another model"),
    "GGUF that is cut short": ({"x.gguf": cut(gguf("llama"))}, f"{ADAPT} --teacher ./x.gguf", r"teacher './x\.gguf' does not load .*\); give another model"),
    "GGUF as a cross-encoder": ({"x.gguf": gguf("llama")}, f"{ADAPT} --teacher ./x.gguf --set teacher.kind=seq2seq", r"is a GGUF file, so its kind is causal, not seq2seq; leave"),
    "teacher whose architectures are a number": ({"llama/config.json": lambda old: old.replace(b'"architectures": [', b'"architectures": 3, "x": [')}, ADAPT, r"its configuration does not say .*; say it with --set teacher\.kind=KIND"),
    "teacher with a broken chat template": ({"llama/chat_template.jinja": "{% if"}, ADAPT, r"Teacher './llama' cannot be asked \(.*\); give another model"),
    "teacher whose chat template refuses": ({"llama/chat_template.jinja": "{{ raise_exception('no user') }}"}, ADAPT, r"Teacher './llama' cannot be asked \(no user\); give another model"),
    "imported teacher that nobody imported": ({}, f"{ADAPT} --teacher imported:bought", r"holds no point labels of imported:bought; bring them with"),
    "model to export that is not there": ({}, "export ./no --out out", r"Model './no': no is neither a folder nor a \.gguf file"),
    "model to export with truncated weights": ({"encoder/model.safetensors": cut}, "export ./encoder --out out --format sentence-transformers", r"encoder/model\.safetensors is missing or damaged .*; fetch it anew"),
    "model that its format cannot express": ({}, "export ./encoder --out out --format pylate", "is a dense student, which pylate cannot express; use"),
    "run to export without a checkpoint": ({"new/run.json": "{}"}, "export new --out out", "new holds no checkpoint yet; finish it"),
    "run to export with broken metrics": ({"run/metrics.json": cut}, "export run --out out", r"run holds a damaged run \(metrics\.json: .*\); give another folder"),
    "run to export with the metrics of another version": ({"run/metrics.json": "{}"}, "export run --out out", r"run/metrics\.json lacks 'iteration'; the same `pdadapt adapt`"),
    "model to search with that is not there": ({}, "search ./no rim --corpus data --index out", r"Model './no': no is neither a folder nor"),
    "model to measure without a tokenizer": (dict.fromkeys(["encoder/tokenizer.json", "encoder/tokenizer_config.json", "encoder/vocab.txt"]), EVALUATE, r"has no tokenizer \(tokenizer\.json\) in encoder; put"),
    "model to measure with broken modules": ({"encoder/modules.json": "{"}, EVALUATE, r"encoder/modules\.json is not valid JSON \(.*\); fetch it anew"),
    "model to measure that is not there": ({}, f"{EVALUATE} --against ./no", r"Model './no': no is neither a folder nor"),
    "encoder of a reranker that is not there": ({"data/qrels/train.tsv": "q1\td1\t1\n"}, "train-reranker --corpus data --recipe tiny.yaml --out out --model ./no", r"Model './no': no is neither"),
    "encoder of a reranker without a tokenizer": ({"data/qrels/train.tsv": "q1\td1\t1\n", "other/config.json": "{}", "other/model.safetensors": lambda _: b"\2\0\0\0\0\0\0\0{}"}, "train-reranker --corpus data --recipe tiny.yaml --out out --model ./other", r"'./other' has no tokenizer .* in other; put"),
}  # fmt: skip

SERVERS = {
    "server's name lacks its model": ({}, f"{ADAPT} --teacher http://127.0.0.1:9/v1", "is no served model; write http://HOST:PORT/v1#NAME"),
    "server at a port that is none": ({}, f"{ADAPT} --teacher http://127.0.0.1:99999/v1#m", "is no served model; write http://HOST:PORT/v1#NAME"),
    "server at an address that is none": ({}, f"{ADAPT} --teacher 'http://[::1/v1#m'", r"is no address \(.*\); write http://HOST:PORT/v1#NAME"),
    "server whose name is none": ({}, f"{ADAPT} --teacher http://a..b/v1#m", r"http://a\.\.b/v1 did not answer \(.*\); see to it"),
    "server's address with a password": ({}, f"{ADAPT} --teacher http://me:secret@127.0.0.1:9/v1#m", "must hold no user, password or query; give the key as PDADAPT_API_KEY"),
    "port where nothing listens": ({}, f"{ADAPT} --teacher http://127.0.0.1:9/v1#m", r"127\.0\.0\.1:9/v1 did not answer \(ConnectError\); see to it"),
}  # fmt: skip

LABELS = {
    "labels that are not there": ({}, IMPORT, r"File l\.jsonl was not found; check its name"),
    "labels of another format": ({"l.csv": LABEL}, IMPORT.replace("jsonl", "csv"), r"l\.csv: labels come as \.jsonl or \.parquet; convert the file"),
    "empty labels": ({"l.jsonl": "\n"}, IMPORT, r"l\.jsonl holds no labels; give"),
    "binary labels": ({"l.jsonl": b"\xff"}, IMPORT, r"l\.jsonl:1: not UTF-8 text .*; convert"),
    "labels with broken JSON": ({"l.jsonl": LABEL + cut(LABEL)}, IMPORT, r"l\.jsonl:2: not valid JSON \(.*\); one object a line"),
    "labels that are a list": ({"l.jsonl": f"[{LABEL.strip()}]"}, IMPORT, r"l\.jsonl:1: expected a JSON object"),
    "label that is NaN": ({"l.jsonl": LABEL + LABEL.replace("1", "NaN")}, IMPORT, r"l\.jsonl:2: `score` must be a number, and a finite one; correct it"),
    "label that is a word": ({"l.jsonl": LABEL.replace("1", '"high"')}, IMPORT, r"l\.jsonl:1: `score` must be a number"),
    "label that is too large": ({"l.jsonl": LABEL.replace("1", "1" + "0" * 400)}, IMPORT, r"l\.jsonl:1: `score` must be a number"),
    "label without a document": ({"l.jsonl": '{"query": "q", "score": 1}'}, IMPORT, r"l\.jsonl:1: needs the texts query, document; add them"),
    "label of half a letter": ({"l.jsonl": LABEL.replace('"d"', r'"\ud83d"')}, IMPORT, r"l\.jsonl:1: holds half of a surrogate pair"),
    "label of a query with half a letter for an id": ({"l.jsonl": LABEL.replace("{", r'{"query_id": "\ud83d", ')}, IMPORT, r"l\.jsonl:1: holds half of a surrogate pair"),
    "labels that contradict each other": ({"l.jsonl": LABEL + LABEL.replace("1", "2")}, IMPORT, r"l\.jsonl:2: the score is 2, but 1\.0 for the same texts in l\.jsonl:1; keep one"),
    "labels of no teacher": ({"l.jsonl": LABEL}, "labels import l.jsonl --store labels.sqlite", r"l\.jsonl:1: names no teacher; give one with --name"),
    "labels of a teacher that is none": ({"l.jsonl": LABEL.replace("{", '{"teacher": "me", ')}, "labels import l.jsonl --store labels.sqlite", r"`teacher` is not what .* wrote; give --name"),
    "labels in Parquet that is none": ({"l.parquet": b"PAR1"}, IMPORT.replace("jsonl", "parquet"), r"l\.parquet cannot be read as Parquet .*; write the file anew"),
    "labels into a folder that is not there": ({"l.jsonl": LABEL}, IMPORT.replace("labels.sqlite", "no/labels.sqlite"), "cannot be made: there is no folder no; make it"),
    "labels into a file that is no store": ({"l.jsonl": LABEL, "labels.sqlite": "precious " * 99}, IMPORT, r"labels\.sqlite is not a label store \(.*\); give another"),
    "labels into a folder": ({"l.jsonl": LABEL}, IMPORT.replace("labels.sqlite", "data"), r"data cannot be used as a label store now \(.*\); give another"),
    "label store that is none": ({"s.sqlite": "precious " * 99}, f"{ADAPT} --set label_store=s.sqlite", r"s\.sqlite is not a label store \(.*\); give another label_store"),
    "label store that is cut short": ({"s.sqlite": lambda _: cut(Path("run/labels.sqlite").read_bytes())}, f"{ADAPT} --set label_store=s.sqlite", r"s\.sqlite is not a label store \(.*\); give another label_store"),
    "label store that is a folder": ({}, f"{ADAPT} --set label_store=data", r"data is a folder; give a file as label_store"),
    "label store below a file": ({}, f"{ADAPT} --set label_store=tiny.yaml/s.sqlite", r"s\.sqlite cannot be made, for tiny\.yaml is a file; give another place"),
    "labels exported onto a folder": ({}, "labels export run --out data", r"data cannot be written \(Is a directory\); give another --out"),
    "labels exported below a file": ({}, "labels export run --out tiny.yaml/l.jsonl", r"l\.jsonl cannot be written \(Not a directory\); give another --out"),
    "labels of a run whose store is broken": ({"run/labels.sqlite": "precious " * 99}, "labels export run", r"run/labels\.sqlite is not a label store \(.*\); give a run"),
    "labels of a folder that is no run": ({}, "labels export data", r"data holds no run; give the folder of a `pdadapt adapt`"),
    "labels of a run that labeled nothing": ({"new/recipe.yaml": "seed: 1\n"}, "labels show new --query q1", "new has no training lists yet; finish"),
    "labels of a query that is not there": ({}, "labels show run --query q99", r"Query 'q99' is not in .*lists\.jsonl; it holds, for instance,"),
    "labels of a run whose lists are broken": ({"run/iteration-1/lists.jsonl": cut}, "labels show run --query q1", r"lists\.jsonl is damaged \(.*\); remove it, and the same"),
    "labels of a run whose lists are none": ({"run/iteration-1/lists.jsonl": "{}"}, "labels show run --query q1", r"lists\.jsonl is damaged \('pairs'\); remove it"),
    "labels of a run with a broken recipe.yaml": ({"run/recipe.yaml": "a: [1"}, "labels export run", r"run holds a damaged run \(recipe\.yaml: .*\); give another folder"),
}  # fmt: skip

RUN_FILES = {
    "run that is not there": ({}, RUNS, r"File mine\.run was not found; check its name"),
    "run that is no run": ({"mine.run": ONE_RUN + "q12\td1\t0.5\n"}, RUNS, r"mine\.run:2: not a line of a TREC run; write six fields"),
    "run whose score is a word": ({"mine.run": ONE_RUN.replace("2.0", "high")}, RUNS, r"mine\.run:1: the score 'high' is not a finite number. Give the document one"),
    "run whose score is NaN": ({"mine.run": ONE_RUN.replace("2.0", "nan")}, RUNS, r"mine\.run:1: the score 'nan' is not a finite number. Give the document one"),
    "binary run": ({"mine.run": b"\xff"}, RUNS, r"mine\.run:1: not UTF-8 text .*; convert"),
    "run that ranks a document twice": ({"mine.run": ONE_RUN * 2}, RUNS, r"mine\.run: query 'q12' ranks document 'd0' twice; keep the first"),
    "empty run": ({"mine.run": ""}, RUNS, r"mine\.run ranks none of the judged queries; check its query ids"),
    "run of other queries": ({"mine.run": ONE_RUN.replace("q12", "x")}, RUNS, r"mine\.run ranks none of the judged queries; check its query ids"),
    "model against a run without its corpus": ({"mine.run": ONE_RUN}, f"{RUNS} --against ./encoder", r"./encoder is no run file, and a model is measured on a --corpus; give"),
    "run to re-order that is not there": ({}, RERANK, r"File mine\.run was not found; check its name"),
    "run to re-order that is empty": ({"mine.run": ""}, RERANK, "The run holds no rankings; give a TREC run file"),
    "run to re-order of other queries": ({"mine.run": ONE_RUN.replace("q12", "x")}, RERANK, "names query 'x', which the corpus' queries lack; give its --queries"),
    "run to re-order of other documents": ({"mine.run": ONE_RUN.replace("d0", "x")}, RERANK, "names document 'x', which the corpus lacks; give the corpus"),
    "run to re-order by a teacher of points only": ({"mine.run": ONE_RUN}, f"{RERANK} --by pairs --teacher ./encoder", "judges documents one by one only; pairs need"),
    "no labels to train on": ({}, "train-msmarco --corpus data --recipe tiny.yaml --set train.lambda_cl=1 --out out", r"train\.lambda_cl needs labeled queries, .*: give qrels/train\.tsv"),
    "labels to train on of other documents": ({"data/qrels/train.tsv": "q1\td1\t1\nq1\tx\t1\n"}, "train-msmarco --corpus data --recipe tiny.yaml --set train.lambda_cl=1 --strict --out out", r"train\.tsv: the corpus lacks 1 of 2 judged documents: 'x'\. .* leave out --strict"),
    "no labels to fit a reranker to": ({}, "train-reranker --corpus data --recipe tiny.yaml --out out", r"brings no labeled queries to train on: give qrels/train\.tsv"),
}  # fmt: skip

OUTS = {
    "--out that is a file": ({}, ADAPT.replace("out out", "out tiny.yaml"), r"cannot be made, for tiny\.yaml is a file; give another place"),
    "--out below a file": ({}, ADAPT.replace("out out", "out tiny.yaml/out"), r"cannot be made, for tiny\.yaml is a file; give another place"),
    "--out where nobody can write": ({}, ADAPT.replace("out out", "out /proc/self/out"), r"/proc/self/out cannot be written to \(.*\); give another folder"),
    "--out with other things in it": ({}, ADAPT.replace("out out", "out data"), "data is not empty and holds no run; give another --out"),
    "--out with a run of other settings": ({}, f"{OF_RUN} --set seed=7", r"run holds a run with other settings: seed was 42, now 7.*; make stage .* anew with --restart-from \w+, or give another --out"),
    "--out with a run of another corpus": (document(), OF_RUN, r"run holds a run with other settings: the corpus changed \(stage student\); make stage .* or give another --out"),
    "--out with a run whose run.json is broken": ({"run/run.json": cut}, OF_RUN, r"run holds a damaged run \(run\.json: .*\); give another folder"),
    "--out with a run whose run.json is a list": ({"run/run.json": "[]"}, OF_RUN, r"run holds a damaged run \(run\.json: no settings\); give another folder"),
    "--out with a run whose run.json is empty": ({"new/run.json": "{}", "new/recipe.yaml": "{}"}, OF_RUN.replace("run", "new"), r"new holds a run of another version \(run\.json\); give another --out"),
    "--out with a run to restart that is not there": ({}, f"{ADAPT} --restart-from train", r"--restart-from: out holds no run to restart; leave it out, or check --out"),
    "--out with a run whose recipe.yaml is binary": ({"run/recipe.yaml": b"\xff"}, OF_RUN, r"run holds a damaged run \(recipe\.yaml: .*\); give another folder"),
    "--out with a run whose recipe.yaml is gone": ({"run/recipe.yaml": None}, OF_RUN, r"run holds a damaged run \(recipe\.yaml: .*\); give another folder"),
    "--out with a run whose memory.json is broken": ({"run/memory.json": "{"}, OF_RUN, r"run holds a damaged run \(memory\.json: .*\); give another folder"),
    "plan for a broken corpus": ({"data/corpus.jsonl": more("{")}, f"{ADAPT} --plan", r"corpus\.jsonl:21: not valid JSON"),
    "plan for a teacher with truncated weights": ({"llama/model.safetensors": cut}, f"{ADAPT} --plan", r"llama/model\.safetensors is missing or damaged"),
    "status of no run": ({}, "status data", "data holds no run; give the folder of a `pdadapt adapt`"),
    "status of a run with broken metrics": ({"run/metrics.json": cut}, "status run", r"run/metrics\.json is damaged; remove it"),
    "report of a folder that is not there": ({}, "report no", "no holds no run; give the folder of a `pdadapt adapt`"),
    "report of a run with a broken recipe.yaml": ({"run/recipe.yaml": "a: [1"}, "report run", r"run holds a damaged run \(recipe\.yaml: .*\); give another folder"),
    "corpus broken since the run": ({"data/corpus.jsonl": more("{")}, OF_RUN, r"corpus\.jsonl:21: not valid JSON"),
    "student broken since the run": ({"encoder/config.json": "{"}, OF_RUN, r"encoder/config\.json is not valid JSON \(.*\); fetch it anew"),
    "--out of an evaluation that is a file": ({"mine.run": ONE_RUN}, RUNS.replace("out out", "out tiny.yaml"), r"tiny\.yaml cannot be written to \(File exists\); give another folder"),
    "--json below a file": ({}, f"{EVALUATE} --json tiny.yaml/x.json", r"tiny\.yaml/x\.json cannot be made, for tiny\.yaml is a file; give another"),
    "--out of a new order below a file": ({"mine.run": ONE_RUN}, RERANK.replace("out.run", "tiny.yaml/x.run"), r"tiny\.yaml/x\.run cannot be made, for tiny\.yaml is a file; give another"),
    "--out of an export that exists": ({}, "export ./encoder --out data --format sentence-transformers", "data exists already; give another --out"),
    "--out of an export below a file": ({}, "export ./encoder --out tiny.yaml/x --format sentence-transformers", r"tiny\.yaml/x cannot be made \(.*\); give another folder"),
    "--index that is a file": ({}, "search ./encoder rim --corpus data --index tiny.yaml", r"tiny\.yaml cannot be written to \(File exists\); give another folder"),
}  # fmt: skip

REFUSED = CORPORA | QUERIES | QRELS | RECIPES | MODELS | SERVERS | LABELS | RUN_FILES | OUTS

USAGE = {
    "no corpus": ("adapt", "Missing option '--corpus'"),
    "command mistyped": ("adpat --corpus data", "No such command 'adpat'. Did you mean 'adapt'"),
    "option mistyped": (f"{ADAPT} --teachr x", "No such option: --teachr"),
    "no iteration": (f"{ADAPT} --iterations 0", "Invalid value for '--iterations'"),
    "word for a number of iterations": (f"{ADAPT} --iterations two", "Invalid value for '--iterations'"),
    "stage that does not exist": (f"{ADAPT} --restart-from nonsense", "Invalid value for '--restart-from'"),
    "nothing to measure": ("evaluate --corpus data", "give either a model or a run"),
    "model and run": (f"{EVALUATE} --run mine.run", "give either a model or a run"),
    "model without a corpus": ("evaluate --model ./encoder", "is needed, unless runs are measured with --qrels"),
    "suite and corpus": (f"{EVALUATE} --suite paper", "stands for corpora, with a --model"),
    "suite that does not exist": ("evaluate --suite beir-99 --model ./encoder", "'beir-99' is not one of 'beir-11'"),
    "--json that is a folder": (f"{EVALUATE} --json data", "'data' is a directory"),
    "model without a name": ("evaluate --corpus data --model ''", "give either a model or a run"),
    "suite's data that are not there": ("evaluate --suite paper --model ./encoder --data no", "'no' does not exist"),
    "no query to search for": ("search ./encoder --corpus data", "give a query, or --interactive"),
    "empty query to search for": ("search ./encoder ' ' --corpus data", "give a query, or --interactive"),
    "no passage to show": ("search ./encoder rim --corpus data --k 0", "Invalid value for '--k'"),
    "format that does not exist": ("export ./encoder --out out --format onxx", "'onxx' is not one of 'stanford'"),
    "--out that is the run itself": (
        "rerank --corpus data --run mine.run --out mine.run",
        "is the run itself; give another",
    ),
    "--out that is a folder": ("rerank --corpus data --run mine.run --out data", "'data' is a directory"),
    "points that are aggregated": (f"{RERANK} --aggregate wins", "is for --by pairs; points are an order already"),
    "top of one document": (f"{RERANK} --top 1", "Invalid value for '--top'"),
}


@pytest.fixture(scope="module")
def workshop(beir, encoder, llama, tmp_path_factory):
    """A folder with all that a run is made of, and a finished run."""
    folder = tmp_path_factory.mktemp("workshop")
    for name, found in {"data": beir, "encoder": encoder, "llama": llama}.items():
        shutil.copytree(found, folder / name)
    (folder / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    with contextlib.chdir(folder):
        adapt(load_recipe("tiny.yaml"), load_dataset("data"), Path("run"), Progress())
    return folder


@pytest.fixture
def here(workshop, tmp_path, monkeypatch):
    """A copy of it, in which the command runs."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PDADAPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(servers, "TRIES", 1)
    load_tokenizer.cache_clear()  # which is by name, and a command a process
    shutil.copytree(workshop, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def prepare(files):
    """Write files (text, bytes, or what becomes of the file that is there), or remove them (None)."""
    for name, content in files.items():
        file = Path(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            file.unlink()
            continue
        if callable(content):
            content = content(file.read_bytes() if file.exists() else b"")
        file.write_bytes(content.encode() if isinstance(content, str) else content)


def snapshot(folder):
    """What is there, byte for byte; but a run's lock names who came last."""
    files = (file for file in folder.rglob("*") if file != folder / "run" / "lock")
    return {file: file.is_file() and hashlib.sha256(file.read_bytes()).digest() for file in files}


def pdadapt(arguments, capsys, monkeypatch):
    """(exit code, stdout, stderr) of a command, run here as the installed one is, but for signals, which are the test runner's."""
    monkeypatch.setattr(sys, "argv", ["pdadapt", *shlex.split(arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main.run()
    return stopped.value.code, *capsys.readouterr()


def check_sentence(errors, message):
    """One sentence of ours, that says what is wrong and the way out."""
    said = [line for line in errors.splitlines() if line.strip()]
    assert [line for line in said if line.startswith("Error: ")] == said[-1:], errors
    sentence = said[-1].removeprefix("Error: ")
    assert re.search(message, sentence), sentence
    assert re.search(r"; |: |\. [A-Z]|, such as |\(did you mean", sentence) and sentence.endswith((".", ")")), sentence
    assert not sentence.startswith("unexpected") and "Traceback" not in errors


@pytest.mark.parametrize(("files", "arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_in_one_sentence_and_nothing_changes(files, arguments, message, here, capsys, monkeypatch):
    if "needs a GPU" in message and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    prepare(files)
    before = snapshot(here)
    code, _, errors = pdadapt(arguments, capsys, monkeypatch)
    assert code == 1
    check_sentence(errors, message)
    assert snapshot(here) == before


@pytest.mark.parametrize(("arguments", "message"), USAGE.values(), ids=USAGE)
def test_a_command_that_is_none_is_refused(arguments, message, here, capsys, monkeypatch):
    prepare({"mine.run": ONE_RUN})
    before = snapshot(here)
    code, _, errors = pdadapt(arguments, capsys, monkeypatch)
    assert code == 2 and "Traceback" not in errors
    assert message in " ".join(errors.replace("│", " ").split())
    assert snapshot(here) == before


def answer(body, kind="application/json", status="200 OK"):
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


def listing(log_p):
    """A chat completion that lists Yes with this log-probability."""
    top = {"top_logprobs": [{"token": "Yes", "logprob": log_p}]}
    return answer(json.dumps({"choices": [{"logprobs": {"content": [top]}}]}))


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (answer("<html>Welcome</html>", "text/html"), "something else than JSON .*; give the address of an OpenAI"),
        (answer("[1, 2]"), "answered without `top_logprobs`, .*; use a server that gives them"),
        (answer('{"error": "no"}'), "answered without `top_logprobs`, .*; use a server that gives them"),
        (answer("[" * 99_999), "something else than JSON .*; give the address"),
        (listing("likely"), "answered without `top_logprobs`, .*; use a server that gives them"),
        (answer("<html>\n<h1>No</h1>\n</html>", "text/html", "404 Not Found"), "status 404: .*; check the address"),
        (answer("", status="301 Moved Permanently"), "status 301: .*; see to it"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", r"did not answer \(RemoteProtocolError\); see to it"),
        (b"", r"did not answer \(RemoteProtocolError\); see to it"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}", r"\(DecodingError\); see"),
    ],
    ids=["page", "list", "error", "deep", "word", "404", "moved", "ssh", "closes", "gzip"],
)
def test_a_server_that_answers_nonsense_is_refused(reply, message, here, capsys, monkeypatch):
    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(65_536)
            self.request.sendall(reply)

    before = snapshot(here)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1#m"
        code, _, errors = pdadapt(f"{ADAPT} --teacher {url}", capsys, monkeypatch)
        server.shutdown()
    assert code == 1
    check_sentence(errors, message)
    assert snapshot(here) == before


def test_the_database_of_another_program_is_no_label_store(here, capsys, monkeypatch):
    with contextlib.closing(sqlite3.connect("cookies.sqlite")) as database:
        database.execute("CREATE TABLE cookies (name TEXT)")
    prepare({"l.jsonl": LABEL})
    before = snapshot(here)
    for arguments in (
        IMPORT.replace("labels", "cookies").replace("cookies import", "labels import"),
        f"{ADAPT} --set label_store=cookies.sqlite",
    ):
        code, _, errors = pdadapt(arguments, capsys, monkeypatch)
        assert code == 1
        check_sentence(errors, r"cookies\.sqlite is not a label store \(it has the tables cookies\); give another")
    assert snapshot(here) == before


@pytest.mark.parametrize(
    ("files", "arguments", "said"),
    [
        ({}, f"{ADAPT} --set retrieve.k=999 --set teacher.pair.window=999 --set train.n_way=999", "Done. Checkpoint"),
        ({}, f"{EVALUATE} --set evaluate.k=999", "6 test queries, 20 documents"),
        (
            {"data/corpus.jsonl": '{"_id": "d0", "text": "rim"}\n', "data/qrels/test.tsv": "q12\td0\t1\n"},
            EVALUATE,
            "1 test queries, 1 documents",
        ),
        ({"data/corpus.jsonl": lambda old: b"\xef\xbb\xbf" + old}, EVALUATE, "6 test queries, 20 documents"),
        ({"mine.run.gz": gzip.compress(ONE_RUN.encode())}, RUNS.replace("mine.run", "mine.run.gz"), "6 test queries"),
    ],
    ids=[
        "k beyond the corpus",
        "depth beyond the corpus",
        "one document to measure on",
        "byte order mark",
        "packed run",
    ],
)
def test_what_can_be_done_is_done(files, arguments, said, here, capsys, monkeypatch):
    prepare(files)
    code, out, errors = pdadapt(arguments, capsys, monkeypatch)
    assert code == 0, errors
    assert said in out


@pytest.mark.parametrize(
    ("files", "arguments", "environment", "message"),
    [
        ({"data/corpus.jsonl": more("{")}, ADAPT, {}, r"corpus\.jsonl:21: not valid JSON"),
        ({"llama/model.safetensors": cut}, ADAPT, {}, r"llama/model\.safetensors is missing or damaged"),
        (
            {},
            f"{ADAPT} --set teacher.quantize=4bit",
            {"CUDA_VISIBLE_DEVICES": "nonsense"},
            "needs a GPU .*; leave it out",
        ),
    ],
    ids=["JSON", "weights", "no such GPU"],
)
def test_so_it_is_in_a_process_of_its_own(files, arguments, environment, message, here):
    prepare(files)
    before = snapshot(here)
    process = subprocess.run(
        [sys.executable, "-m", "pdadapt", *shlex.split(arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )
    assert process.returncode == 1
    check_sentence(process.stderr, message)
    assert snapshot(here) == before
