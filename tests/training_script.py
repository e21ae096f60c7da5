"""One process of a training: python training_script.py STUDENT CORPUS OUT OVERRIDES(JSON)."""

import json
import sys
from pathlib import Path

from pdadapt.data.load import load_dataset
from pdadapt.labeling.training_list import TrainingList
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import TrainSettings
from pdadapt.students.colbert import load_colbert
from pdadapt.training.trainer import train

student, corpus, out, overrides = sys.argv[1:]
dataset = load_dataset(corpus)
defaults = {"batch_size": 4, "n_way": 4, "learning_rate": 1e-3, "steps": 5, "save_steps": 2, "dropout": 0}
settings = TrainSettings(**defaults | json.loads(overrides))
lists = [
    TrainingList(
        query_id,
        [f"d{(start + 3 * i) % 20}" for i in range(4)],
        [2.0, 1.0, None if start % 2 else 0.5, -1.0],
        [(0, 1, 1.5), (1, 2, -0.5)][: start % 3],
        [f"d{start}", f"d{(start + 6) % 20}"][: start % 3],
    )
    for start, query_id in enumerate(list(dataset.queries)[:8])
]
Path(out).mkdir(parents=True, exist_ok=True)
train(load_colbert(student), lists, dataset.corpus, dataset.queries, settings, 1, Path(out), Progress())
