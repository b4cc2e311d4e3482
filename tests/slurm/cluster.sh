#!/bin/sh
# A SLURM of one node on this machine, for tests: cluster.sh {install|start|stop} FOLDER
#
# install  installs Debian's packages, where they are missing (needs root)
# start    starts munged, slurmctld and slurmd; configuration, logs and state lie in FOLDER.
#          Then `export SLURM_CONF=FOLDER/slurm.conf` and use sbatch, squeue and scancel.
# stop     ends the three by the ids they left in FOLDER
#
# PORT and PORT + 1 are listened at; two clusters on one machine need a PORT each.
set -eu
action=$1
port=${PORT:-16817}
mkdir -p "$2"
folder=$(cd "$2" && pwd)

# wait_for SECONDS COMMAND...: until it succeeds
wait_for() {
    left=$1
    shift
    until "$@" > /dev/null 2>&1; do
        left=$((left - 1))
        if [ "$left" -le 0 ]; then
            echo "cluster.sh: gave up waiting for: $*; see the logs in $folder" >&2
            exit 1
        fi
        sleep 1
    done
}

case $action in
install)
    if ! { command -v slurmctld && command -v slurmd && command -v munged; } > /dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            slurm-wlm munge > "$folder/install.log"
    fi
    ;;
start)
    export SLURM_CONF="$folder/slurm.conf"
    host=$(hostname -s)
    mkdir -p "$folder/state" "$folder/spool"
    # munge trusts no key or socket that others could replace, so none in /tmp: root's own folder
    munge=/run/tumorreg-munge-$port
    mkdir -p "$munge"
    chmod 755 "$munge"
    head -c 1024 /dev/urandom > "$munge/key"
    chmod 600 "$munge/key"
    cat > "$SLURM_CONF" << END
ClusterName=here
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=5
SchedulerParameters=batch_sched_delay=0,sched_interval=2
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc --all) State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
    munged --force --key-file="$munge/key" --socket="$munge/socket" \
        --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" \
        --seed-file="$folder/munged.seed"
    slurmctld
    wait_for 60 scontrol ping
    slurmd
    wait_for 60 sh -c 'sinfo --noheader --format=%T | grep -q idle'
    sinfo
    ;;
stop)
    for program in slurmd slurmctld munged; do
        if [ -s "$folder/$program.pid" ]; then
            kill "$(cat "$folder/$program.pid")" 2> /dev/null || true
        fi
    done
    ;;
*)
    echo 'usage: cluster.sh {install|start|stop} FOLDER' >&2
    exit 2
    ;;
esac
