import json
import math
import shutil
from itertools import product

import ir_measures
import pytest
from typer.testing import CliRunner

from pdadapt.cli.main import app
from pdadapt.data.answers import AnswerMatcher
from pdadapt.data.corpus import Corpus, Dataset, Document
from pdadapt.data.run_file import in_trec_order, read_run
from pdadapt.errors import DataError, RecipeError
from pdadapt.evaluation.changed import largest_changes
from pdadapt.evaluation.evaluate import evaluate
from pdadapt.evaluation.measures import _parse, parse_measures, per_query, value_of_system
from pdadapt.evaluation.significance import compare, compare_two, holm, paired_test
from pdadapt.retrieval import search
from pdadapt.runtime.locks import locked
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import EvaluateSettings, RetrieveSettings

QRELS = {"q1": {"a": 2, "b": 1, "c": 0}, "q2": {"x": 1}, "q3": {"z": 1}}
RANKING = {"q1": [("c", 3.0), ("a", 2.0), ("b", 1.0)], "q2": [("y", 2.0), ("x", 1.0)]}


def test_measures_by_hand_and_a_query_without_results_counts_zero():
    values = per_query(RANKING, QRELS, ["nDCG@10", "RR@10", "R@100", "Success@5"])
    ideal = 2 + 1 / math.log2(3)
    assert values["nDCG@10"]["q1"] == pytest.approx((2 / math.log2(3) + 1 / math.log2(4)) / ideal)
    assert values["RR@10"] == pytest.approx({"q1": 0.5, "q2": 0.5, "q3": 0.0})
    assert values["R@100"] == {"q1": 1.0, "q2": 1.0, "q3": 0.0}
    assert value_of_system("Success@5", values["Success@5"]) == pytest.approx(2 / 3)


def test_unknown_measures_are_named():
    with pytest.raises(RecipeError, match="'nDGC@10' is not a measure"):
        parse_measures(["nDCG@10", "nDGC@10"])


def test_the_paired_test_equals_full_enumeration_of_the_sign_flips():
    base = {str(i): value for i, value in enumerate([0.1, 0.2, 0.3, 0.4, 0.5, 0.0])}
    other = {str(i): value for i, value in enumerate([0.3, 0.25, 0.2, 0.8, 0.9, 0.0])}
    differences = [other[key] - base[key] for key in base if other[key] != base[key]]
    observed = sum(differences)
    flips = [sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in product((1, -1), repeat=5)]
    expected = sum(abs(flip) >= abs(observed) - 1e-12 for flip in flips) / len(flips)
    assert paired_test(base, other, 10_000, 1) == pytest.approx(expected)


def test_the_paired_test_is_seeded_and_knows_equal_systems():
    base = {str(i): (i * 37 % 11) / 11 for i in range(60)}
    other = {key: value + (0.1 if int(key) % 3 else -0.1) for key, value in base.items()}
    assert paired_test(base, other, 2_000, 1) == paired_test(base, other, 2_000, 1) < 0.05
    assert paired_test(base, base, 2_000, 1) == 1.0
    assert paired_test(base, {**base, "0": 9.0}, 2_000, 1) == 1.0


def test_compare_tests_every_ranking_against_the_first():
    better = {**RANKING, "q3": [("z", 1.0)]}
    settings = EvaluateSettings(measures=("RR@10",), resamples=100)
    found = compare([RANKING, RANKING, better], QRELS, settings, seed=1)["RR@10"]
    assert found.means == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert [one.p for one in found.comparisons] == [1.0, 1.0]
    assert [(one.base, one.system) for one in found.comparisons] == [(0, 1), (0, 2)]


def test_measures_are_trec_evals_on_ties_ungraded_and_unjudged_documents():
    # trec_eval breaks ties by document id, descending: b before a, so the order of q1 is c, b, a, u
    ranking = {"q1": [("c", 2.0), ("a", 1.0), ("b", 1.0), ("u", 0.5)], "q2": [("x", 1.0)]}
    qrels = {"q1": {"a": 1, "b": 0, "c": 2, "d": 1}, "q2": {"y": 1}}
    values = per_query(ranking, qrels, ["AP", "RR", "P@5", "Rprec", "nDCG@10", "NumRet", "NumRelRet", "IPrec@0.5"])
    assert values["AP"] == pytest.approx({"q1": (1 + 2 / 3) / 3, "q2": 0.0})
    assert values["Rprec"]["q1"] == pytest.approx(2 / 3) and values["P@5"]["q1"] == pytest.approx(0.4)
    ideal = 2 + 1 / math.log2(3) + 1 / 2
    assert values["nDCG@10"]["q1"] == pytest.approx((2 + 1 / 2) / ideal)
    assert values["IPrec@0.5"]["q1"] == pytest.approx(2 / 3)
    assert (value_of_system("NumRet", values["NumRet"]), value_of_system("NumRelRet", values["NumRelRet"])) == (5, 2)
    assert value_of_system("RR", values["RR"]) == 0.5
    tied = per_query({"q1": [("a", 1.0), ("b", 1.0), ("c", 1.0)]}, {"q1": {"a": 1}}, ["RR", "RR@10", "RR@2"])
    assert [values["q1"] for values in tied.values()] == pytest.approx([1 / 3, 1 / 3, 0.0])


def test_a_measure_is_the_same_under_all_its_names_and_without_results():
    values = per_query(RANKING, QRELS, ["AP", "MAP", "map", "RR@10", "MRR@10", "nDCG", "recall_100", "ndcg_cut_10"])
    assert values["AP"] == values["MAP"] == values["map"] and values["RR@10"] == values["MRR@10"]
    assert values["AP"]["q1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert per_query({"q1": [], "q2": RANKING["q2"]}, QRELS, ["Judged@10"])["Judged@10"]["q1"] == 0.0
    assert per_query({}, QRELS, ["nDCG@10"])["nDCG@10"] == {"q1": 0.0, "q2": 0.0, "q3": 0.0}


@pytest.mark.parametrize(("measures", "k"), [(("nDCG@10",), 100), (("R@500", "P@5"), 500), (("nDCG@10", "AP"), 1000)])
def test_ranking_depth_follows_the_measures(measures, k):
    assert EvaluateSettings(measures=measures).depth == k


def test_a_comparison_is_the_paired_t_test_by_hand():
    base, other = (
        dict(zip("abcd", [0.1, 0.2, 0.3, 0.4], strict=True)),
        dict(zip("abcd", [0.3, 0.2, 0.6, 0.3], strict=True)),
    )
    found = compare_two(base, other, 100, 1)
    differences = [0.2, 0.0, 0.3, -0.1]
    center = sum(differences) / 4
    error = math.sqrt(sum((value - center) ** 2 for value in differences) / 3 / 4)
    assert found.change == pytest.approx(center)
    assert found.interval == pytest.approx([center - 3.182446 * error, center + 3.182446 * error])
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)
    assert 0.3 < found.p_t < 0.5  # t = 1.095, 3 degrees of freedom: .353
    assert compare_two(base, base, 100, 1).interval is None


def test_t_test_of_a_constant_difference_is_significant():
    base = {str(i): 0.1 * i for i in range(10)}
    found = compare_two(base, {key: value + 1.0 for key, value in base.items()}, 1_000, 1)
    assert found.p_t < 1e-6 and found.wins == 10
    assert compare_two(base, base, 1_000, 1).p_t == 1.0


def test_two_evaluations_do_not_share_a_folder(beir, tmp_path):
    with locked(tmp_path / "out"):
        said = CliRunner().invoke(
            app, ["evaluate", "--corpus", str(beir), "--model", "bm25", "--out", f"{tmp_path}/out"]
        )
    assert "is in use by another pdadapt" in str(said.exception)


def test_an_own_corpus_is_measured_with_its_queries_and_judgments(beir, tmp_path):
    measured = []
    queries = ["--queries", str(beir / "queries.jsonl")]
    qrels = ["--qrels", str(beir / "qrels" / "test.tsv")]
    for corpus, given in ((beir, []), (beir / "corpus.jsonl", [*queries, *qrels])):
        out = tmp_path / corpus.name
        said = CliRunner().invoke(
            app, ["evaluate", "--corpus", str(corpus), "--model", "bm25", "--out", str(out), *given]
        )
        assert said.exit_code == 0, said.output
        measured.append(json.loads((out / "metrics.json").read_text(encoding="utf-8"))["measures"])
    assert measured[0] == measured[1]
    command = ["evaluate", "--corpus", str(beir / "corpus.jsonl"), "--model", "bm25"]
    assert "Add --queries FILE" in str(CliRunner().invoke(app, [*command, *qrels]).exception)
    assert "or --queries and --qrels" in str(CliRunner().invoke(app, command).exception)


def test_evaluate_refuses_a_missing_model_before_indexing(beir, stanford, tmp_path):
    command = ["evaluate", "--corpus", str(beir), "--against", str(stanford), "--out", str(tmp_path / "out")]
    said = CliRunner().invoke(app, [*command, "--model", "./nothere"])
    assert "nothere" in str(said.exception) and not (tmp_path / "out").exists()


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_the_most_changed_queries_come_first_and_unchanged_ones_not_at_all():
    base = {f"q{i}": 0.5 for i in range(20)}
    other = base | {"q3": 0.1, "q7": 1.0, "q9": 0.6}
    assert largest_changes(base, other) == ["q7", "q3", "q9"]
    assert len(largest_changes(base, {query_id: i / 20 for i, query_id in enumerate(base)})) == 10


def test_anyones_runs_are_measured_and_compared_without_a_corpus(tmp_path):
    (tmp_path / "qrels").write_text("q1 0 a 1\nq2 0 b 1\nq3 0 c 1\n", encoding="utf-8")
    runs = {"one": "aab", "two": "abb", "three": "abc"}
    for name, found in runs.items():
        lines = [f"q{i} Q0 {doc_id} 1 2.0 {name} junk\n" for i, doc_id in enumerate(found, 1)]
        (tmp_path / name).write_text("".join(lines), encoding="utf-8")
    command = ["evaluate", "--qrels", str(tmp_path / "qrels"), "--measures", "RR P@1", "--out", str(tmp_path / "out")]
    against = [part for name in ("one", "two") for part in ("--against", str(tmp_path / name))]
    said = CliRunner().invoke(
        app, [*command, "--run", str(tmp_path / "three"), *against, "--json", str(tmp_path / "j")]
    )
    assert said.exit_code == 0, said.output
    metrics = json.loads((tmp_path / "j").read_text(encoding="utf-8"))
    assert metrics["measures"]["RR"]["means"] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert [one["wins"] for one in metrics["measures"]["P@1"]["comparisons"]] == [2, 1]
    assert [one["query_id"] for one in metrics["most_changed"]] == ["q2", "q3"]
    assert "Holm" in said.output and "3 test queries" in said.output and " three - one " in said.output
    rows = (tmp_path / "out" / "queries.tsv").read_text(encoding="utf-8").splitlines()
    assert rows[1] == "q1\tRR\t1.000000\t1.000000\t1.000000" and len(rows) == 7
    missing = CliRunner().invoke(app, [*command, "--run", str(tmp_path / "no")])
    assert "not found" in str(missing.exception)
    model = CliRunner().invoke(app, [*command, "--run", str(tmp_path / "three"), "--against", "nothere"])
    assert "nothere is not a run file, and a model needs a corpus. Give one with --corpus." in str(model.exception)
    for wrong in (["--run", "x", "--model", "y"], [], ["--model", "m"]):
        assert CliRunner().invoke(app, [*command, *wrong]).exit_code == 2


NEAR = {"a": 7.00000020, "b": 7.00000010, "c": 7.0}  # one and the same in single precision, as trec_eval keeps scores


@pytest.mark.parametrize("scores", [NEAR, dict.fromkeys("abc", 1.0), {"a": 5e-46, "b": 0.0, "c": -0.0}])
def test_near_ties_are_ordered_alike_for_every_measure(scores):
    ranking = {"q": list(scores.items())}
    names = ["RR", "RR@2", "RR@1", "P@1", "Success@1", "nDCG@1", "AP", "R@1", "Judged@1", "Compat", "Bpref", "Rprec"]
    for doc_id, first in (("c", 1.0), ("a", 0.0)):
        values = per_query(ranking, {"q": {doc_id: 1}}, names)
        assert {values[name]["q"] for name in names if name.endswith("@1") or name == "Rprec"} == {first}
        assert values["RR"]["q"] == values["AP"]["q"] == pytest.approx(1.0 if first else 1 / 3)
    answers = AnswerMatcher(Corpus([Document("c", "", "Paris"), Document("a", "", "Rome")]), {"q": ("Paris",)})
    assert per_query(ranking, {"q": {"c": 1}}, ["Answer@1"], answers)["Answer@1"] == {"q": 1.0}
    assert [doc_id for doc_id, _ in in_trec_order(ranking["q"])] == ["c", "b", "a"]


def test_a_model_and_the_run_that_it_left_have_the_same_figures(beir, stanford, tmp_path, monkeypatch):
    """Be its scores so near that the run file, with its six decimals, does not tell them apart."""
    found = search.retrieve_documents

    def nearly_alike(*arguments):
        ranking = found(*arguments)
        return {q: [(doc_id, 1.0 - place * 1e-7) for place, (doc_id, _) in enumerate(r)] for q, r in ranking.items()}

    monkeypatch.setattr("pdadapt.evaluation.evaluate.retrieve_documents", nearly_alike)
    command = ["evaluate", "--corpus", str(beir), "--no-bm25", "--measures", "RR@10 nDCG@10 AP Success@5 P@3"]
    command += ["--out", str(tmp_path / "out")]
    shown = []
    for given in (["--model", str(stanford)], ["--run", ""]):
        given = [part or str(next((tmp_path / "out").glob("*.run"))) for part in given]
        said = CliRunner().invoke(app, [*command, *given])
        assert said.exit_code == 0, said.output
        shown.append((tmp_path / "out" / "queries.tsv").read_text(encoding="utf-8").split("\n", 1)[1])
    assert shown[0] == shown[1]


def test_most_changed_shows_the_order_that_was_measured(tmp_path):
    (tmp_path / "qrels").write_text("q 0 c 1\n", encoding="utf-8")
    lines = [f"q Q0 {doc_id} 1 {score:.9f} x\n" for doc_id, score in NEAR.items()]
    (tmp_path / "near").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "far").write_text("q Q0 a 1 1.0 x\n", encoding="utf-8")
    command = ["evaluate", "--qrels", str(tmp_path / "qrels"), "--run", str(tmp_path / "near"), "--measures", "RR"]
    command += ["--against", str(tmp_path / "far"), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, command).exit_code == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["most_changed"][0]["top"] == [["a"], ["c", "b", "a"]] and metrics["measures"]["RR"]["means"] == [
        0,
        1,
    ]


@pytest.fixture
def arguments(tmp_path):
    """Queries that are documents, as ArguAna's are: q1 and q2; q3 has a document's id by chance."""
    folder = tmp_path / "arguments"
    (folder / "qrels").mkdir(parents=True)
    texts = {"q1": "rim hub spoke", "q2": "pad rotor lever", "q3": "chain", "d1": "rim hub", "d2": "pad rotor"}
    rows = [{"_id": doc_id, "title": "", "text": text} for doc_id, text in texts.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    queries = [{"_id": key, "text": texts[key] if key != "q3" else "tube"} for key in ("q1", "q2", "q3")]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries), encoding="utf-8")
    judged = "q1\td1\t1\nq2\td2\t1\nq3\tq3\t1\n"
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}", encoding="utf-8")
    found = {"q1": ["q1", "d1"], "q2": ["q2", "d2"], "q3": ["q3"]}
    lines = [f"{q} Q0 {d} {i} {9 - i} theirs\n" for q, ids in found.items() for i, d in enumerate(ids)]
    (tmp_path / "theirs.run").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize("passages", [[], ["--passages", "words=2,overlap=1"]])
def test_a_query_that_is_a_document_finds_itself_in_no_run_either(arguments, tmp_path, passages):
    command = [
        "evaluate",
        "--run",
        str(tmp_path / "theirs.run"),
        "--measures",
        "RR P@1",
        "--out",
        str(tmp_path / "out"),
    ]
    said = CliRunner().invoke(app, [*command, *passages, "--corpus", str(arguments), "--against", "bm25"])
    assert said.exit_code == 0, said.output
    assert "theirs.run ranks the query itself for 2 of 3 queries. It is left out as for models." in " ".join(
        said.output.split()
    )
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["measures"]["RR"]["means"] == pytest.approx([2 / 3, 1.0]), "bm25 finds nothing for q3"
    assert metrics["most_changed"][0]["top"] == [[], ["q3"]], "another text, so the same id by chance"


def test_evaluate_without_texts_keeps_documents_with_the_id_of_the_query(arguments, tmp_path):
    command = ["evaluate", "--run", str(tmp_path / "theirs.run"), "--measures", "RR", "--out", str(tmp_path / "out")]
    said = CliRunner().invoke(app, [*command, "--qrels", str(arguments / "qrels" / "test.tsv")])
    assert said.exit_code == 0, said.output
    assert "ranks a document with the id of the query for 3 of 3 queries. It is kept" in " ".join(said.output.split())
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["measures"]["RR"]["means"] == pytest.approx([(1 / 2 + 1 / 2 + 1) / 3])


@pytest.mark.slow
def test_reranking_leaves_the_query_itself_out(arguments, tiny_recipe, tmp_path):
    command = ["rerank", "--corpus", str(arguments), "--run", str(tmp_path / "theirs.run"), "--top", "2"]
    said = CliRunner().invoke(app, [*command, "--recipe", str(tiny_recipe), "--by", "points"])
    assert said.exit_code == 0, said.output
    assert "theirs.run ranks the query itself for 2 of 3 queries. It is left out there." in " ".join(
        said.output.split()
    )
    ranking = read_run(tmp_path / "theirs-points.run")
    assert {query_id: [doc_id for doc_id, _ in ranked] for query_id, ranked in ranking.items()} == {
        "q1": ["d1"],
        "q2": ["d2"],
        "q3": ["q3"],
    }


@pytest.mark.parametrize(("measure", "missing"), [("ERR@10", "perl"), ("nDCG(dcg='exp-log2')@10", "perl")])
def test_a_measure_that_needs_a_program_names_it(measure, missing, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for provider in ir_measures.DefaultPipeline.providers:
        monkeypatch.setattr(provider, "_is_available", None)
    _parse.cache_clear()
    with pytest.raises(RecipeError, match=rf"needs .*{missing}.*, which is not installed\. Install it"):
        parse_measures([measure])
    with pytest.raises(RecipeError, match="'SDCG@10' cannot be computed \\(it needs a value of max_rel\\)"):
        parse_measures(["SDCG@10"])


def evaluated(tmp_path, run, dataset, capsys):
    (tmp_path / "theirs.run").write_text(run, encoding="utf-8")
    settings = EvaluateSettings(measures=("RR@10",), resamples=100)
    metrics = evaluate(
        [str(tmp_path / "theirs.run")],
        dataset,
        settings,
        {},
        tmp_path / "out",
        1,
        RetrieveSettings(),
        Progress(),
        [],
    )
    return list(metrics.measures["RR@10"].means), " ".join(capsys.readouterr().err.split())


def test_given_run_that_lacks_queries_is_reported_and_one_of_other_documents_refused(tmp_path, capsys):
    corpus = Corpus([Document("d1", "", "a wheel"), Document("d2", "", "a chain")])
    queries, qrels = {"q1": "wheel", "q2": "chain"}, {"q1": {"d1": 1}, "q2": {"d2": 1}}
    dataset = Dataset("small", corpus, {}, queries, qrels)
    means, said = evaluated(tmp_path, "q1 Q0 d1 1 2.0 x\nq1 Q0 gone 2 1.0 x\n", dataset, capsys)
    assert means == [0.5]
    assert "ranks nothing for 1 of 2 judged queries (such as 'q2'). They count as 0." in said
    assert "ranks 1 of 2 documents that the corpus lacks (such as 'gone')" in said
    with pytest.raises(DataError, match=r"ranks no document of the corpus, but others such as '7'\. Check"):
        evaluated(tmp_path, "q1 Q0 7 1 2.0 x\nq2 Q0 8 1 1.0 x\n", dataset, capsys)
    alone = Dataset("qrels", Corpus([]), {}, queries, qrels)
    means, said = evaluated(tmp_path, "q1 Q0 7 1 2.0 x\nq2 Q0 8 1 1.0 x\n", alone, capsys)
    assert means == [0.0] and "ranks no judged document. Check its document ids." in said


def test_measures_of_gdeval_take_any_query_ids():
    if shutil.which("perl") is None:
        pytest.skip("gdeval.pl needs perl")
    found = per_query({"q one": [("d1", 2.0), ("d2", 1.0)]}, {"q one": {"d1": 1}, "b": {"d2": 1}}, ["ERR@10", "RR@10"])
    assert found["ERR@10"]["q one"] > 0 and found["ERR@10"]["b"] == 0.0 and found["RR@10"] == {"q one": 1.0, "b": 0.0}
