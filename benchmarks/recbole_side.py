"""RecBole's SASRec with its default settings, on synthetic histories in its own file format."""

import logging
import warnings
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

from bbqrec_core import Sequences

SETTINGS = {  # our sizes, otherwise defaults; no progress bars and no files
    "hidden_size": 64,
    "inner_size": 256,
    "n_layers": 2,
    "n_heads": 2,
    "loss_type": "CE",
    "train_neg_sample_args": None,
    "MAX_ITEM_LIST_LENGTH": 50,
    "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]},
    "eval_args": {"split": {"LS": "valid_and_test"}, "group_by": "user", "order": "TO", "mode": "full"},
    "metrics": ["Recall", "NDCG"],
    "topk": [5, 10, 20],
    "valid_metric": "NDCG@10",
    "metric_decimal_place": 12,
    "show_progress": False,
    "use_gpu": False,
    "state": "ERROR",
}


class Peer(NamedTuple):
    """RecBole's objects. `train` and `test` are data loaders; `row_of` maps its item numbers to our item rows."""

    model: SASRec
    trainer: Trainer
    train: object
    test: object
    row_of: np.ndarray


def build(sequences: Sequences, items: int, seed: int = 0) -> Peer:
    """RecBole's model, trainer and loaders for our histories and a catalogue of `items` items."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    folder = Path(mkdtemp(prefix="bench"))
    sizes = np.diff(sequences.offsets)
    events = pd.DataFrame(
        {
            "user_id:token": np.repeat(np.arange(len(sizes)), sizes),
            "item_id:token": sequences.items,
            "timestamp:float": np.arange(len(sequences.items), dtype=float),
        }
    )
    (folder / "made").mkdir()
    events.to_csv(folder / "made" / "made.inter", sep="\t", index=False)
    catalogue = pd.DataFrame({"item_id:token": np.arange(1, items + 1)})
    catalogue.to_csv(folder / "made" / "made.item", sep="\t", index=False)
    places = {"data_path": str(folder), "checkpoint_dir": str(folder / "saved"), "seed": seed}
    config = Config(model="SASRec", dataset="made", config_dict=SETTINGS | places)
    init_seed(seed, True)
    dataset = create_dataset(config)
    train, _, test = data_preparation(config, dataset)
    torch.set_num_threads(1)
    model = SASRec(config, train.dataset)
    row_of = np.array([0, *map(int, dataset.field2id_token["item_id"][1:])])
    return Peer(model, Trainer(config, model), train, test, row_of)
