#!/bin/bash
# A leader, a NATS server and one node process per machine, in one Slurm job. Start: sbatch slurm.sh
#SBATCH --job-name=evaluate
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --no-kill
# SIGTERM a minute before the time limit, so that nodes give back what they have.
#SBATCH --signal=B:TERM@60
set -euo pipefail

# The example of invoker-nats; put your own program and its options here. `--insecure` is `Cluster::from_env_insecure`: the password
# is sent as it is, in the cluster's own network.
node=("$PWD/batch_eval_cluster" --cluster node --insecure)
leader=("$PWD/batch_eval_cluster" --cluster lead --insecure --recs recs.csv "$@")

export INVOKER_RUN=slurm-$SLURM_JOB_ID
# The batch script runs on the first machine: server and leader are there, too.
host=$(hostname)
password=$(openssl rand -hex 16)
export INVOKER_NATS=nats://user:$password@$host:4222

umask 077
cat > "$SLURM_JOB_ID.conf" <<CONF
port: 4222
jetstream { store_dir: "${TMPDIR:-/tmp}/nats-$SLURM_JOB_ID" }
authorization { user: user, password: "$password" }
CONF
nats-server -c "$SLURM_JOB_ID.conf" -l "nats-$SLURM_JOB_ID.log" &
server=$!
trap 'kill $server' EXIT
until (: < "/dev/tcp/$host/4222") 2> /dev/null; do sleep 0.1; done

# The death of one node must not end the others.
srun --overlap --no-kill --kill-on-bad-exit=0 --wait=0 "${node[@]}" &
"${leader[@]}"
wait $! || true
