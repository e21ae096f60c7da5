"""Write queries. An LLM writes about one document after the other until enough queries are kept.

This is the way of InPars (Bonifacio et al. 2022) and GPL (Wang et al. 2022). The round trip, in which a query must find
its document again, is that of Promptagator (Dai et al. 2023).

FILE               the queries, JSONL: _id, text, kind, and doc_id, the document that the query was written about
FILE.report.json   what they are made from; how many were written and kept; why the others were not kept
FILE.work/         during the work: settings.json, vectors-N.npy, sources.json, written.jsonl, index/
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pdadapt.errors import DataError
from pdadapt.generation import filters, kinds, sources
from pdadapt.generation.answer_log import AnswerLog, count_reasons, query_lines, summarise_answers
from pdadapt.generation.job import GenerationJob, origin_changes, settings_error
from pdadapt.generation.writers import QueryRequest, load_writer, writer_model
from pdadapt.labeling.ask import Questions, ask_missing, in_chunks
from pdadapt.labeling.store import LabelStore
from pdadapt.models.device import release_memory
from pdadapt.retrieval.search import retrieve
from pdadapt.runs.changes import name_changes
from pdadapt.runtime.files import read_settings, write_atomic
from pdadapt.runtime.locks import locked
from pdadapt.students.colbert import PROJECTION_SAMPLE
from pdadapt.students.load import load_student
from pdadapt.teachers.base import Point, score_of
from pdadapt.teachers.kind import model_of
from pdadapt.teachers.label_key import teacher_key
from pdadapt.teachers.load import Teachers

MIN_DOCUMENTS_PER_RANK = 50  # the round trip says little if generate.k is more than one in so many documents


def write_queries(job: GenerationJob) -> dict[str, Any]:
    """Write `generate.count` queries about the documents. Return the content of the report.

    After a kill, the same call continues the work. Fewer queries are written if no more can be found. Raises DataError
    if no query is good enough, RunError if another process or other settings are at work on the same file.
    """
    if not job.out.exists() or job.folder.exists():
        with locked(job.folder):
            if not job.out.exists():
                write_file(job)
            shutil.rmtree(job.folder, ignore_errors=True)
    return read_settings(job.report)


def write_file(job: GenerationJob) -> None:
    """Write the queries and the report, in batches until enough queries are kept."""
    recipe, progress, settings = job.recipe, job.progress, job.recipe.generate
    log = AnswerLog(job.folder / "written.jsonl")
    note_origin(job, log)
    shares = ", ".join(f"{kind} {share:.0%}" for kind, share in job.shares.items())
    progress.say(f"{writer_model(recipe).model} writes {settings.count:,} queries into {job.out}: {shares}.")
    warn_of_weak_round_trip(job)
    documents = find_documents(job)
    doc_ids = documents["doc_ids"]
    while counts := kinds.next_counts(job.shares, settings.count, log.verdicts, len(doc_ids)):
        if settings.round_trip:
            _ = job.engine  # if indexing fails, it does so before the LLM works
        requests = []
        for number in kinds.draw_queries(counts, log.verdicts, len(doc_ids), recipe.seed):
            place, kind = kinds.place_and_kind(number)
            requests.append(QueryRequest(number, kind, job.corpus[doc_ids[place]]))
        write_answers(job, requests, log)
        log.add_verdicts(judge_queries(job, requests, log))
    passed = [number for number, reason in log.verdicts.items() if reason is None]
    kept = kinds.keep_by_shares(passed, job.shares, settings.count)
    if not kept:
        raise none_kept(job, log)
    report = {
        "from": job.origin,
        "model": writer_model(recipe).model,
        "wanted": settings.count,
        "documents": {
            "looked_at": documents["looked_at"],
            "left_out": documents["left_out"],
            "fit": len(doc_ids),
        },
        **summarise_answers(kept, log),
    }
    write_atomic(job.report, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    write_atomic(job.out, query_lines(kept, log, doc_ids))
    reasons = count_reasons([*log.verdicts.values(), *["more than wanted"] * (len(passed) - len(kept))])
    progress.say(f"Kept {len(kept):,} of {len(log.verdicts):,} queries.{reasons and f' Not kept: {reasons}.'}")


def note_origin(job: GenerationJob, log: AnswerLog) -> None:
    """Write down what the queries are made from, or compare it with what is written down.

    If only the judging differs, the verdicts are removed and the answers stay. Raises RunError if anything else does.
    """
    settings = job.folder / "settings.json"
    changes = origin_changes(settings, job.origin) if settings.exists() else []
    if others := [change for change in changes if not job.only_judges(change[0])]:
        raise settings_error(job.folder, others)
    unanswered = "not judged" in log.verdicts.values()
    if changes or unanswered:
        reason = name_changes(changes) or "the teacher gave no answers before"
        job.progress.say(f"All queries are judged again, since {reason}.")
        log.forget_verdicts()
    write_atomic(settings, json.dumps({"from": job.origin}, indent=2) + "\n")


def warn_of_weak_round_trip(job: GenerationJob) -> None:
    """Say so if generate.k is large for the corpus, so that most queries find their document again."""
    settings, size = job.recipe.generate, len(job.corpus)
    stricter = max(1, size // MIN_DOCUMENTS_PER_RANK)
    if settings.round_trip and settings.k > stricter:
        job.progress.say(
            f"The round-trip check is weak: a query's document must be among the best {min(settings.k, size)} of only "
            f"{size:,} documents. Use --set generate.k={stricter} for a stricter check."
        )


def none_kept(job: GenerationJob, log: AnswerLog) -> DataError:
    """Return the error for a job of which no query is good enough, with remedies for the most frequent reasons."""
    settings, reasons = job.recipe.generate, Counter(log.verdicts.values())
    remedies = {}
    if settings.round_trip == "bm25":
        remedies["not found again"] = "let the student find documents again with --set generate.round_trip=student"
    longer = f"allow more than {settings.max_tokens} tokens with --set generate.max_tokens=N"
    remedies["cut off"] = f"remove {job.folder} and {longer}"
    remedies["not judged"] = "make sure that the teacher answers, or leave generate.least_point out"
    ways = [remedies[reason] for reason, _ in reasons.most_common() if reason in remedies]
    ways += [
        f"remove {job.folder} and name another LLM with --set generate.model=NAME",
        "give queries with --queries FILE",
    ]
    return DataError(
        f"{writer_model(job.recipe).model} wrote {len(log.verdicts):,} queries, and none is good enough "
        f"({count_reasons(log.verdicts.values())}). Try one of these: {'; '.join(ways)}."
    )


def find_documents(job: GenerationJob) -> dict[str, Any]:
    """Return the content of sources.json, which is written if it is missing.

    `doc_ids`: the documents to write about, in order. `looked_at`: how many were sampled. `left_out`: counts of the
    reasons against the others.
    """
    if job.sources.exists():
        return read_settings(job.sources)
    documents, recipe = job.corpus.documents, job.recipe
    positions, reasons = job.usable_documents
    if len(positions) > recipe.generate.count:
        student = load_student(recipe.student.model, recipe.student, job.corpus.sample(PROJECTION_SAMPLE))
        with job.progress.task("embed documents", len(positions), "documents") as advance:
            vectors = sources.embed(student, documents, positions, job.folder, recipe.retrieve.batch_tokens, advance)
        order = sources.spread_over_clusters(vectors, recipe.generate.count, recipe.seed)
        positions = [positions[row] for row in order]
    else:
        random.Random(recipe.seed).shuffle(positions)
    doc_ids = [documents[position].doc_id for position in positions]
    content = {"looked_at": len(positions) + reasons.total(), "left_out": reasons, "doc_ids": doc_ids}
    write_atomic(job.sources, json.dumps(content, ensure_ascii=False) + "\n")
    return content


def write_answers(job: GenerationJob, requests: Sequence[QueryRequest], log: AnswerLog) -> None:
    """Let the LLM answer the requests that it has not answered yet."""
    missing = [request for request in requests if request.number not in log.answers]
    with job.progress.task("write queries", len(requests), "queries") as advance:
        advance(len(requests) - len(missing), earlier=True)
        if missing:
            for answers in load_writer(job.recipe, job.progress.say).write(missing):
                log.add_answers([(request.number, text) for request, text in answers])
                advance(len(answers))
    release_memory()


def judge_queries(job: GenerationJob, requests: Sequence[QueryRequest], log: AnswerLog) -> dict[int, str | None]:
    """Return the reason why each query is not kept, by number; None if it is kept.

    The checks are, in this order: the text itself, the round trip, the teacher, and whether the same query is among
    the examples or among those that passed all checks before.
    """
    settings = job.recipe.generate
    texts = {one.number: filters.clean(log.answers[one.number]) for one in requests}
    verdicts = {one.number: filters.fault(texts[one.number], one.kind, one.document.contents) for one in requests}

    def passed() -> list[QueryRequest]:
        return [one for one in requests if verdicts[one.number] is None]

    if settings.round_trip and (left := passed()):
        queries = {f"g{one.number}": texts[one.number] for one in left}
        ranking = retrieve(job.engine, job.corpus, queries, job.folder / "index", settings.k, job.progress)
        for one in left:
            if one.document.doc_id not in dict(ranking[f"g{one.number}"]):
                verdicts[one.number] = "not found again"
    if settings.least_point is not None:
        points = {one.number: Point(texts[one.number], one.document.contents) for one in passed()}
        for number, score in point_scores(job, points).items():
            if score is None:
                verdicts[number] = "not judged"
            elif score < settings.least_point:
                verdicts[number] = "judged irrelevant"
    kept = [filters.clean(log.answers[number]) for number, reason in log.verdicts.items() if reason is None]
    seen = set(map(filters.normalised, [*job.examples, *kept]))
    for one in passed():
        if (query := filters.normalised(texts[one.number])) in seen:
            verdicts[one.number] = "duplicate"
        seen.add(query)
    return verdicts


def point_scores(job: GenerationJob, points: dict[int, Point]) -> dict[int, float | None]:
    """Return the teacher's score of each point, by number. Scores are kept in the label store."""
    settings = job.recipe.teacher
    teachers = Teachers(settings, ["point"], job.progress, job.corpus)
    names = {str(number): point for number, point in points.items()}
    chunks = in_chunks(names, dict.fromkeys(names, 1))
    questions = Questions(chunks, lambda ids: map(names.__getitem__, ids))
    key, name = teacher_key(settings, "point", job.corpus), model_of(settings, "point").model
    with LabelStore(job.store, "points", key, name) as labels:
        ask_missing(questions, labels, lambda: score_of(teachers("point"), "point"), job.progress, "label sources")
        scores = {number: labels.get(point) for number, point in points.items()}
    teachers.free()
    return scores
