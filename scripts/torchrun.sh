#!/usr/bin/env bash
# Trains with several processes, and restarts all of them from the last checkpoint when one has died:
#
#   scripts/torchrun.sh --config configs/mnist.yaml                    # a process for each GPU of this machine
#   PROCESSES=2 scripts/torchrun.sh --config configs/digits.yaml
#   NODES=1:2 RENDEZVOUS=first-machine:29400 scripts/torchrun.sh …     # the same command on each machine
#
# NODES may be a range: machines may then leave and join, and the run goes on with those that are there, as long as the
# number of processes divides the batch. All machines share the folder of runs (`--runs_dir`). RESTARTS is how often a run
# begins again before it gives up. It goes on by its name (`--name`, else the config's).
set -euo pipefail

# A store of their own for each start of the processes: in that of torchrun itself, addresses of those that have died
# would still stand, and some releases of PyTorch look them up there.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

exec python -m torch.distributed.run \
    --nnodes "${NODES:-1}" \
    --nproc-per-node "${PROCESSES:-gpu}" \
    --max-restarts "${RESTARTS:-3}" \
    --rdzv-backend c10d \
    --rdzv-endpoint "${RENDEZVOUS:-localhost:0}" \
    --module lightning_cgan fit "$@" --ckpt_path last
