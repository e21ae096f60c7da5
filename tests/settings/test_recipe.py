import pytest
import torch
from rich.console import Console

from pdadapt.cli import options
from pdadapt.errors import RecipeError
from pdadapt.settings.recipes import all_settings, load_recipe, parse_override, recipe_names, recipe_path
from pdadapt.settings.schema import TrainSettings
from pdadapt.training.trainer import count_steps


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_is_valid_and_says_how_to_run_it(name):
    load_recipe(name)
    head = [line for line in recipe_path(name).read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any("--corpus" in line and ("pdadapt adapt" in line or "pdadapt train-msmarco" in line) for line in head)
    assert any("Reproduces" in line for line in head)
    assert any("Cost" in line for line in head)


def test_recipes_of_the_package_are_listed():
    assert set(recipe_names()) >= {
        "paper",
        "fiqa",
        "bioasq",
        "climate-fever",
        "small",
        "demo",
        "msmarco",
        "ablations/no-pair",
    }


def test_the_paper_recipe_holds_the_papers_settings():
    recipe = load_recipe("paper")
    assert recipe.student.model == "colbert-ir/colbertv2.0"
    assert recipe.teacher.model == "google/flan-t5-xl"
    assert (recipe.retrieve.k, recipe.teacher.pair.window, recipe.teacher.pair.per_query) == (100, 10, 50)
    assert (recipe.train.batch_size, recipe.train.n_way, recipe.train.learning_rate) == (32, 64, 1e-5)
    assert (recipe.train.temperature, recipe.train.lambda_kd, recipe.train.lambda_pair) == (1.0, 1.0, 3.0)
    assert (recipe.train.query_length, recipe.train.document_length) == (32, 180)


def test_the_recipes_of_the_paper_follow_the_released_optimizer():
    for name in ("paper", "msmarco"):
        train = load_recipe(name).train
        assert (train.steps, train.warmup, train.max_grad_norm, train.weight_decay) == (30_000, 0.1, 2.0, 0.0)


def test_the_supervised_recipes_take_lists_and_negatives_as_the_released_code_does():
    names = [name for name in recipe_names() if name == "msmarco" or name.startswith("ablations/")]
    for name in names:
        train = load_recipe(name).train
        assert train.list == "pairs" and train.in_batch_negatives
        assert train.own_negatives == (name == "ablations/dpr"), name


def test_the_default_is_the_paper_with_a_cap_and_the_best_state():
    cap = {"train.max_epochs": 20, "train.checks": 10}
    assert load_recipe("default").model_dump() == load_recipe("paper", cap).model_dump()
    assert count_steps(load_recipe("default").train, 180) == 113
    assert count_steps(load_recipe("few-pairs").train, 180) == 113, "a recipe for any corpus"
    assert count_steps(load_recipe("paper").train, 180) == 30_000


def test_the_default_of_the_commands_is_for_any_corpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert options.default_recipe(Console()) == "default"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with (console := Console(width=200)).capture() as said:
        assert options.default_recipe(console) == "small"
    assert "Recipe `default` needs a GPU" in said.get()


def test_the_papers_corpora_are_the_paper_recipe_with_every_query_trained_on():
    for name, query_length in (("fiqa", 32), ("bioasq", 32), ("climate-fever", 64)):
        expected = load_recipe("paper", {"train.held_out": 0, "student.query_length": query_length})
        assert load_recipe(name) == expected


def test_a_recipe_changes_its_base_key_by_key(tmp_path):
    assert load_recipe("ablations/no-kd").model_dump() == load_recipe("msmarco", {"train.lambda_kd": 0}).model_dump()
    mine, yours = tmp_path / "mine.yaml", tmp_path / "yours.yaml"
    mine.write_text("base: ablations/no-kd\nteacher: {pair: {window: 3}}\n", encoding="utf-8")
    expected = load_recipe("msmarco", {"train.lambda_kd": 0, "teacher.pair.window": 3})
    assert load_recipe(str(mine)).model_dump() == expected.model_dump()
    mine.write_text(f"base: {yours}\n", encoding="utf-8")
    yours.write_text(f"base: {mine}\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"mine\.yaml: the recipe is its own `base`, through .*yours\.yaml"):
        load_recipe(str(mine))
    yours.write_text("base: small\nseed: 7\n", encoding="utf-8")
    mine.write_text("base: yours.yaml\n", encoding="utf-8")
    assert load_recipe(str(mine)).seed == 7, "a path is looked for beside the recipe that names it"
    mine.write_text(f"base: ../{tmp_path.name}/mine.yaml\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="is its own `base`"):
        load_recipe(str(mine))


def test_set_changes_one_key_and_reads_numbers():
    overrides = dict(map(parse_override, ["train.learning_rate=3e-6", "retrieve.max_queries=300"]))
    recipe = load_recipe("paper", overrides)
    assert recipe.train.learning_rate == 3e-6
    assert recipe.retrieve.max_queries == 300


def test_every_problem_is_named_at_once_with_the_nearest_key():
    with pytest.raises(RecipeError) as problem:
        load_recipe("paper", {"train.learningrate": 1, "retrieve.k": 0, "teacher.kind": "gpt"})
    message = str(problem.value)
    assert "train.learningrate: unknown key (did you mean train.learning_rate?)" in message
    assert "--set retrieve.k" in message and "--set teacher.kind" in message and "paper.yaml" not in message
    with pytest.raises(RecipeError) as problem:
        load_recipe("paper", {"teacher.pair.labels": ["A"], "colour": "red"})
    message = str(problem.value)
    assert "--set teacher.pair.labels" in message and "paper.yaml" not in message
    assert "colour: unknown key. See `pdadapt recipes settings`" in message


def test_every_setting_is_listed_with_its_meaning():
    listed = {key: (default, meaning) for key, default, meaning in all_settings()}
    assert listed["train.learning_rate"][0] == TrainSettings().learning_rate and "teacher" not in listed
    assert all(meaning for _, meaning in listed.values())


def test_unknown_recipes_bad_yaml_and_bad_overrides(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'fiqa'"):
        load_recipe("fika")
    (tmp_path / "bad.yaml").write_text("a: [1\nb: 2", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"bad\.yaml:2: not valid YAML"):
        load_recipe(str(tmp_path / "bad.yaml"))
    with pytest.raises(RecipeError, match="not of the form key=value"):
        parse_override("train.steps")
    with pytest.raises(RecipeError, match="'seed' is a value, not a section"):
        load_recipe("paper", {"seed.deep": 1})


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(RecipeError, match=r"YAML reads Yes and No as true and false.*\. Quote them"):
        load_recipe("paper", dict([parse_override("teacher.point.labels=[Yes, No]")]))
    with pytest.raises(RecipeError, match=r"train\.warmup: .*less than or equal to 1 \(got 3000\)"):
        load_recipe("paper", {"train.warmup": 3000})
    with pytest.raises(RecipeError, match=r"strengths, which are fitted to pairs.*\. Set it to 10"):
        load_recipe("small", {"train.kd_target": "strengths"})
    neither = {"train.own_negatives": False, "train.in_batch_negatives": False}
    with pytest.raises(RecipeError, match=r"so L_CL has no negatives\. Set one of them to true"):
        load_recipe("paper", neither | {"train.lambda_cl": 1})
    with pytest.raises(RecipeError, match=r"batch_size is 1, so L_CL has no negatives"):
        load_recipe("msmarco", {"train.batch_size": 1})
    assert load_recipe("paper", neither).train.lambda_cl == 0, "without L_CL nothing is wrong with it"
    for without_pairs in ("train.lambda_pair", "teacher.pair.per_query"):
        with pytest.raises(RecipeError, match=r"recipe: .*nothing to learn.*\. Set one of the lambdas above 0\.$"):
            load_recipe("paper", {"train.lambda_kd": 0, without_pairs: 0})
