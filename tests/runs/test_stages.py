"""The declaration of the stages: every setting is read by one of them, and every artefact of a run is declared."""

from fnmatch import fnmatch

import pytest

from pdadapt.data.load import load_dataset
from pdadapt.pipeline import adapt
from pdadapt.preflight import check
from pdadapt.runs.stages import (
    GENERATION,
    OTHER_COMMANDS,
    RUN_FILES,
    STAGE_NAMES,
    STAGES,
    artefacts_before,
    is_free,
    stage_that_reads,
)
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import all_settings, load_recipe

SETTINGS = [key for key, _, _ in all_settings()]
READ = {read for stage in STAGES for read in stage.reads}


def named(key: str) -> bool:
    """Whether a stage names this key, or a section that it stands in."""
    parts = key.split(".")
    return any(".".join(parts[:length]) in READ for length in range(1, len(parts) + 1))


@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_is_read_by_a_stage_or_by_another_command(key):
    assert named(key) != (key.split(".")[0] in (*GENERATION, *OTHER_COMMANDS))


def test_no_two_stages_read_the_same_key():
    assert len(READ) == sum(len(stage.reads) for stage in STAGES)
    assert [stage.name for stage in STAGES] == list(STAGE_NAMES)


@pytest.mark.parametrize("key", [key for stage in STAGES for key in stage.free])
def test_free_settings_exist(key):
    assert key in SETTINGS and is_free(key)


def test_a_setting_belongs_to_the_stage_that_names_it_most_closely():
    found = {key: stage_that_reads(key) for key in ("train.n_way", "train.steps", "teacher.pair.window", "unheard.of")}
    assert list(found.values()) == ["label", "train", "label", "student"]


def test_settings_of_another_command_are_free_in_a_run_of_adapt_only():
    assert is_free("reranker.steps") and not is_free("reranker.steps", staged=False)


def test_artefacts_before_names_what_earlier_stages_wrote():
    assert artefacts_before("label") == {"candidates.run"}
    assert artefacts_before("train") >= {"candidates.run", "lists.jsonl", "labels.json", "asked.jsonl"}


@pytest.fixture(scope="module")
def finished(tiny_recipe, beir, tmp_path_factory):
    out = tmp_path_factory.mktemp("stages") / "run"
    settings = {"train.held_out": 0.5, "train.steps": 2, "train.report_to": ["tensorboard"]}
    settings |= {"retrieve.sources": ["student", "bm25"]}
    recipe, dataset = load_recipe(str(tiny_recipe), settings), load_dataset(str(beir))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pdadapt.evaluation.held_out.MIN_HELD_OUT", 1)
        adapt(recipe, dataset, out, Progress())
        return out, check(recipe, dataset, out, Progress())


@pytest.mark.slow
def test_every_file_of_a_run_is_declared(finished):
    out, _ = finished
    declared = [artefact.path for artefact in (*RUN_FILES, *(each for stage in STAGES for each in stage.writes))]
    patterns = [path.replace("iteration-N", "iteration-*") + "*" * path.endswith("/") for path in declared]
    for file in (path for path in out.rglob("*") if path.is_file()):
        name = str(file.relative_to(out))
        assert any(fnmatch(name, pattern) for pattern in patterns), name


@pytest.mark.slow
def test_run_json_says_nothing_that_no_stage_reads(finished):
    _, context = finished
    assert all(named(key) for key in context.origin if key not in ("versions", "source"))
