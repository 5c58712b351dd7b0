"""Trains the judges that the package ships, and measures them on the test split, which influences no choice.

    python scripts/train_judge.py MNISTData FashionMNISTData DigitsData
    python scripts/train_judge.py DigitsData --image_size 16        # as in configs/digits.yaml

Each large set takes about ten minutes on two CPU cores. The files are written to `lightning_cgan/evaluation/judges/`.
"""

from __future__ import annotations

import argparse
import time

import torch

import lightning_cgan
from lightning_cgan.evaluation.classifiers import accuracy
from lightning_cgan.evaluation.judge import SHIPPED, fingerprint_of, save_judge, train_judge


def main() -> None:
    """Trains the judges that are named."""
    parser = argparse.ArgumentParser(description="Trains the judges that the package ships.")
    parser.add_argument("data", nargs="+", help="the classes of data sets, such as MNISTData")
    parser.add_argument("--image_size", type=int, help="the side in pixels to resize to; by default, as they are")
    options = parser.parse_args()
    resized = {} if options.image_size is None else {"image_size": options.image_size}
    for name in options.data:
        data = getattr(lightning_cgan, name)(**resized)
        data.prepare_data()
        data.setup("test")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        started = time.monotonic()
        train = data.in_order("train")
        judge = train_judge(train, data.num_classes, device)
        card = {
            "data": name,
            "fingerprint": fingerprint_of(train),
            "validation_accuracy": accuracy(judge, data.in_order("validation")),
            "test_accuracy": accuracy(judge, data.in_order("test")),
        }
        file = "-".join([name, *map(str, resized.values())])
        save_judge(judge, SHIPPED / f"{file}.safetensors", **card)
        print(f"{name}: {card['test_accuracy']:.2%} of the test split, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
