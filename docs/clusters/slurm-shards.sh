#!/bin/bash
# No server: each element of a job array evaluates one shard of the tasks. Start: sbatch slurm-shards.sh
# An element that fails can be run again by itself: sbatch --array=7 slurm-shards.sh
#SBATCH --job-name=evaluate-shards
#SBATCH --array=0-15
#SBATCH --requeue
set -euo pipefail

shard=$SLURM_ARRAY_TASK_ID/16
part=$(printf 'recs-%03d.csv' "$SLURM_ARRAY_TASK_ID")
./evaluate --shard "$shard" --recs "$part.new"
mv "$part.new" "$part"
# When all of them are there: cat recs-*.csv > recs.csv
