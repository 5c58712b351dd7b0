#!/usr/bin/env bash
# A SLURM of two nodes on this machine, as root, with Debian's slurm-wlm and munge.
#
#   slurm.sh start FOLDER    starts it, with its configuration, states and logs in a folder
#   slurm.sh stop FOLDER
#
# Commands find it by SLURM_CONF=FOLDER/slurm.conf.
set -euo pipefail

start() {
    mkdir -p /run/munge "$folder"
    chown munge:munge /run/munge
    if [ ! -s /etc/munge/munge.key ]; then
        mungekey --force
    fi
    munge --no-input > /dev/null 2>&1 || setpriv --reuid munge --regid munge --clear-groups munged
    write_config > "$folder/slurm.conf"
    export SLURM_CONF="$folder/slurm.conf"
    slurmctld -c
    for node in n1 n2; do
        slurmd -N "$node"
    done
    for _ in $(seq 60); do
        if [ "$(sinfo --noheader --format %t --Node | grep -c idle)" = 2 ]; then
            return
        fi
        sleep 0.5
    done
    sinfo
    exit 1
}

write_config() {
    cat << END
ClusterName=test
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=17000
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=20
MpiDefault=none
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
SchedulerParameters=requeue_delay=1
NodeName=n[1-2] NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=1
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
}

stop() {
    export SLURM_CONF="$folder/slurm.conf"
    scancel --full --user root || true
    pids=()
    for file in "$folder"/slurmd-n1.pid "$folder"/slurmd-n2.pid "$folder"/slurmctld.pid; do
        if [ -s "$file" ]; then
            pids+=("$(cat "$file")")
        fi
    done
    kill "${pids[@]}"
    for pid in "${pids[@]}"; do
        tail --pid "$pid" -f /dev/null # until it has ended
    done
}

folder="$(realpath -m "$2")"
"$1"
