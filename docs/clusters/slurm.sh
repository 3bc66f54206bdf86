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

program=$PWD/evaluate
export INVOKER_RUN=slurm-$SLURM_JOB_ID
# The batch script runs on the first machine: server and leader are there, too.
host=$(hostname)
export INVOKER_NATS=nats://user:$(openssl rand -hex 16)@$host:4222
password=${INVOKER_NATS#*user:}
password=${password%@*}

umask 077
cat > "$SLURM_JOB_ID.conf" <<CONF
port: 4222
jetstream { store_dir: "${TMPDIR:-/tmp}/nats-$SLURM_JOB_ID" }
authorization { user: user, password: "$password" }
CONF
nats-server -c "$SLURM_JOB_ID.conf" &
server=$!
trap 'kill $server' EXIT

# The death of one node must not end the others. `from_env_insecure` in the program: the password is sent as it is, in the
# cluster's own network.
srun --overlap --no-kill --kill-on-bad-exit=0 --wait=0 "$program" --node &
"$program"
wait %2 || true
