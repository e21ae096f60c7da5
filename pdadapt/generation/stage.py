"""Stage: corpus -> queries. An LLM writes about documents, one after the other, until enough are kept.

As in InPars (Bonifacio et al. 2022) and GPL (Wang et al. 2022); that a query must find its document again is
Promptagator's round trip (Dai et al. 2023).

FILE               the queries, JSONL: _id, text, kind, and doc_id, the document that it was written about
FILE.report.json   what they are made from; how many were written and kept, and why the others went
FILE.work/         while it goes on: settings.json, vectors-N.npy, sources.json, written.jsonl, index/
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pdadapt.errors import DataError
from pdadapt.generation import filters, mix, sources
from pdadapt.generation.notes import Notes
from pdadapt.generation.report import count_reasons, rows, summarise
from pdadapt.generation.writers import Asked, load_writer, writer_model
from pdadapt.generation.writing import Writing, differing, other_settings
from pdadapt.labeling.ask import Questions, ask_missing, in_chunks
from pdadapt.labeling.store import LabelStore
from pdadapt.models.device import release_memory
from pdadapt.retrieval.search import retrieve
from pdadapt.runs.changes import name_changes
from pdadapt.runtime.files import read_settings, write_atomic
from pdadapt.runtime.locks import locked
from pdadapt.students.colbert import PCA_DOCUMENTS
from pdadapt.students.load import load_student
from pdadapt.teachers.base import Point, score_of
from pdadapt.teachers.kind import model_of
from pdadapt.teachers.label_key import teacher_key
from pdadapt.teachers.load import Teachers

FEW = 50  # generate.k of so many times as many documents says something


def write_queries(writing: Writing) -> dict[str, Any]:
    """Write `generate.count` queries about the documents; returns what the report holds.

    Killed at any moment, the same call goes on from there. Fewer are written when no more are to be had. Raises
    DataError when none is fit to be kept, RunError when others are being written there.
    """
    if not writing.out.exists() or writing.folder.exists():
        with locked(writing.folder):  # from here on there is something to go on with
            if not writing.out.exists():
                write_file(writing)
            shutil.rmtree(writing.folder, ignore_errors=True)
    return read_settings(writing.report)


def write_file(writing: Writing) -> None:
    """Leave the file and its report."""
    recipe, progress, out = writing.recipe, writing.progress, writing.out
    notes = Notes(writing.folder / "written.jsonl")
    begin(writing, notes)
    kinds = ", ".join(f"{kind} {share:.0%}" for kind, share in writing.shares.items())
    progress.say(f"{writer_model(recipe).model} writes {recipe.generate.count:,} queries into {out}: {kinds}.")
    size = len(writing.corpus)
    fewer = max(1, size // FEW)
    if recipe.generate.round_trip and recipe.generate.k > fewer:
        progress.say(
            f"To be found again among {min(recipe.generate.k, size)} of {size:,} documents says "
            f"little of a query: --set generate.k={fewer} is stricter."
        )
    found = find_documents(writing)
    settings, places = recipe.generate, len(found["doc_ids"])
    while wanted := mix.how_many(writing.shares, settings.count, notes.verdicts, places):
        if settings.round_trip:
            _ = writing.engine  # whose index may fail, before the LLM works for nothing
        chunk = []
        for number in mix.draw(wanted, notes.verdicts, places, recipe.seed):
            place, kind = mix.meant_by(number)
            chunk.append(Asked(number, kind, writing.corpus[found["doc_ids"][place]]))
        write(writing, chunk, notes)
        notes.judge(judge(writing, chunk, notes))
    every = [number for number, reason in notes.verdicts.items() if reason is None]
    kept = mix.by_shares(every, writing.shares, settings.count)
    if not kept:
        raise none_kept(writing, notes)
    documents = {"looked_at": found["looked_at"], "left_out": found["left_out"], "fit": len(found["doc_ids"])}
    report = {
        "from": writing.origin,
        "model": writer_model(recipe).model,
        "wanted": settings.count,
        "documents": documents,
        **summarise(kept, notes),
    }
    write_atomic(writing.report, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    write_atomic(out, rows(kept, notes, found["doc_ids"]))
    went = count_reasons([*notes.verdicts.values(), *["more than wanted"] * (len(every) - len(kept))])
    progress.say(f"Kept {len(kept):,} of {len(notes.verdicts):,} queries that were written{went and f' ({went})'}.")


def begin(writing: Writing, notes: Notes) -> None:
    """Note what the queries are made from, or make sure that those begun here are made from the same. Where only what
    judges them differs, the verdicts go, and the answers stay. Raises RunError when anything else does.
    """
    settings = writing.folder / "settings.json"
    changes = differing(settings, writing.origin) if settings.exists() else []
    if others := [change for change in changes if not writing.judges(change[0])]:
        raise other_settings(writing.folder, others)
    unanswered = "not judged" in notes.verdicts.values()
    if changes or unanswered:
        why = name_changes(changes) or "the teacher did not answer before"
        writing.progress.say(f"Judged anew, since {why}.")
        notes.forget_verdicts()
    write_atomic(settings, json.dumps({"from": writing.origin}, indent=2) + "\n")


def none_kept(writing: Writing, notes: Notes) -> DataError:
    """What to say, and what to do, when no query is fit to be kept."""
    settings, reasons = writing.recipe.generate, Counter(notes.verdicts.values())
    ways = {}
    if settings.round_trip == "bm25":
        ways["not found again"] = "let the student find documents again with --set generate.round_trip=student"
    longer = f"let it write more than {settings.max_tokens} tokens with --set generate.max_tokens=N"
    ways["cut off"] = f"remove {writing.folder} and {longer}"
    ways["not judged"] = "see that the teacher answers, or leave generate.least_point out"
    said = [ways[reason] for reason, _ in reasons.most_common() if reason in ways]
    said += [
        f"remove {writing.folder} and name another LLM with --set generate.model=NAME",
        "bring queries with --queries FILE",
    ]
    return DataError(
        f"None of {len(notes.verdicts):,} queries that {writer_model(writing.recipe).model} wrote is fit to be kept "
        f"({count_reasons(notes.verdicts.values())}): {'; or '.join(said)}."
    )


def find_documents(writing: Writing) -> dict[str, Any]:
    """`doc_ids` of the documents to write about, in this order; how many were looked at, why others are left out."""
    if writing.sources.exists():
        return read_settings(writing.sources)
    documents, recipe = writing.corpus.documents, writing.recipe
    fit, why = writing.fit
    if len(fit) > recipe.generate.count:
        student = load_student(
            recipe.student.model,
            **recipe.student.model_dump(exclude={"model"}),
            passages=writing.corpus.sample(PCA_DOCUMENTS),
        )
        with writing.progress.task("embed documents", len(fit), "documents") as advance:
            vectors = sources.embed(student, documents, fit, writing.folder, recipe.retrieve.batch_tokens, advance)
        fit = [fit[row] for row in sources.spread(vectors, recipe.generate.count, recipe.seed)]
    else:
        random.Random(recipe.seed).shuffle(fit)
    doc_ids = [documents[position].doc_id for position in fit]
    found = {"looked_at": len(fit) + why.total(), "left_out": why, "doc_ids": doc_ids}
    write_atomic(writing.sources, json.dumps(found, ensure_ascii=False) + "\n")
    return found


def write(writing: Writing, chunk: Sequence[Asked], notes: Notes) -> None:
    """Have the LLM answer what it has not answered yet."""
    asked = [one for one in chunk if one.number not in notes.answers]
    with writing.progress.task("write queries", len(chunk), "queries") as advance:
        advance(len(chunk) - len(asked), earlier=True)
        if asked:
            for answers in load_writer(writing.recipe, writing.progress.say).write(asked):
                notes.add([(one.number, text) for one, text in answers])
                advance(len(answers))
    release_memory()


def judge(writing: Writing, chunk: Sequence[Asked], notes: Notes) -> dict[int, str | None]:
    """Why each query of the chunk went, None where it is kept: the text itself, the round trip, the teacher, and
    whether there is such a one already among those that passed all this, or the examples.
    """
    settings = writing.recipe.generate
    texts = {one.number: filters.clean(notes.answers[one.number]) for one in chunk}
    verdicts = {one.number: filters.fault(texts[one.number], one.kind, one.document.contents) for one in chunk}

    def passed() -> list[Asked]:
        return [one for one in chunk if verdicts[one.number] is None]

    if settings.round_trip and (left := passed()):
        queries = {f"g{one.number}": texts[one.number] for one in left}
        index = writing.folder / "index"
        ranking = retrieve(writing.engine, writing.corpus, queries, index, settings.k, writing.progress)
        for one in left:
            if one.document.doc_id not in dict(ranking[f"g{one.number}"]):
                verdicts[one.number] = "not found again"
    if settings.least_point is not None:
        points = {one.number: Point(texts[one.number], one.document.contents) for one in passed()}
        for number, score in judged(writing, points).items():
            if score is None:
                verdicts[number] = "not judged"
            elif score < settings.least_point:
                verdicts[number] = "judged irrelevant"
    kept = [filters.clean(notes.answers[number]) for number, reason in notes.verdicts.items() if reason is None]
    seen = set(map(filters.normalised, [*writing.examples, *kept]))
    for one in passed():
        if (query := filters.normalised(texts[one.number])) in seen:
            verdicts[one.number] = "duplicate"
        seen.add(query)
    return verdicts


def judged(writing: Writing, points: dict[int, Point]) -> dict[int, float | None]:
    """What the teacher says of each, by number."""
    settings = writing.recipe.teacher
    teachers = Teachers(settings, ["point"], writing.progress)
    names = {str(number): point for number, point in points.items()}
    chunks = in_chunks(names, dict.fromkeys(names, 1))
    questions = Questions(chunks, lambda asked: map(names.__getitem__, asked))
    key, name = teacher_key(settings, "point"), model_of(settings, "point").model
    with LabelStore(writing.store, "points", key, name) as labels:
        ask_missing(questions, labels, lambda: score_of(teachers("point"), "point"), writing.progress, "label sources")
        found = {number: labels.get(point) for number, point in points.items()}
    teachers.free()
    return found
