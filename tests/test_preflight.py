"""What is said before the work begins."""

import pytest

from pdadapt.data.load import load_dataset
from pdadapt.preflight import announce, start_context
from pdadapt.runs.folder import RunFolder
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teacher.pair.per_query": 0}, True),
        ({"teacher.pair.scoring": "derived"}, True),
        ({"teacher.pair.per_query": 3}, False),
    ],
)
def test_announce_names_a_pair_teacher_that_will_not_be_asked(beir, tiny_recipe, tmp_path, monkeypatch, changes, said):
    recipe = load_recipe(str(tiny_recipe), {"teacher.pair.model": "some/model"} | changes)
    progress, lines = Progress(), []
    monkeypatch.setattr(progress, "say", lines.append)
    announce(start_context(recipe, load_dataset(str(beir)), RunFolder(tmp_path / "run"), progress))
    assert any("some/model" in line and "will not be asked" in line for line in lines) == said
