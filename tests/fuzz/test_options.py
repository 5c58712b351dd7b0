"""Whatever a checkpoint says of how its run was configured, that is taken up, or refused in one line."""

from __future__ import annotations

import copy
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR, MultiStepLR, OneCycleLR

from helpers.fuzzing import check_reader, fuzz
from helpers.mutations import JUNK, TENSORS, spoilt_trees
from lightning_cgan.training.optimizer_config import check_configuration, check_same_classes, configuration
from lightning_cgan.training.option_changes import apply_changed_options

SCHEDULES = [
    partial(MultiStepLR, milestones=[1, 2]),
    partial(OneCycleLR, max_lr=0.1, total_steps=5),
    partial(LambdaLR, lr_lambda=lambda step: 0.5**step),
]


@given(data=st.data())
@fuzz
def test_configurations(data: st.DataObject) -> None:
    schedule: Any = data.draw(st.sampled_from(SCHEDULES))
    optimizers = [Adam([torch.zeros(1, requires_grad=True)]) for _ in range(2)]
    configs = [SimpleNamespace(scheduler=schedule(of), interval="step", frequency=1) for of in optimizers]
    now = configuration(optimizers, configs)
    checkpoint = {
        "optimizer_states": [of.state_dict() for of in optimizers],
        "lr_schedulers": [config.scheduler.state_dict() for config in configs],
    }
    before = data.draw(spoilt_trees(copy.deepcopy(now), [*JUNK, *TENSORS]))

    def go_on() -> None:
        check_configuration(before, "configured")
        check_same_classes(before, now, lambda number, part: part)
        for line in apply_changed_options(
            copy.deepcopy(checkpoint), before, optimizers, configs, lambda number, part: part
        ):
            assert "\n" not in line

    check_reader(go_on)
