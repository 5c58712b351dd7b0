#!/usr/bin/env bash
# Trains with several processes, and restarts all of them from the last checkpoint if one dies:
#
#   scripts/torchrun.sh --config mnist                    # a process for each GPU of this machine
#   PROCESSES=2 scripts/torchrun.sh --config digits
#   NODES=1:2 RENDEZVOUS=first-machine:29400 scripts/torchrun.sh …     # the same command on each machine
#
# NODES may be a range: machines may then leave and join, and the run resumes on those that are available, if the number
# of processes divides the batch size. All machines share the folder of runs (`--runs_dir`). RESTARTS is the number of
# restarts before a run gives up. A run resumes by its name (`--name`, else the config's).
set -euo pipefail

# A separate store for each start of the processes: torchrun's own would still contain the addresses of dead processes,
# and some releases of PyTorch look them up there.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

exec python -m torch.distributed.run \
    --nnodes "${NODES:-1}" \
    --nproc-per-node "${PROCESSES:-gpu}" \
    --max-restarts "${RESTARTS:-3}" \
    --rdzv-backend c10d \
    --rdzv-endpoint "${RENDEZVOUS:-localhost:0}" \
    --module lightning_cgan fit "$@" --ckpt_path last
