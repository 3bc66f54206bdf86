# Slurm with three nodes in a network namespace of its own, because its daemons listen on every address: `cargo xtask cluster slurm`.
# The job script of the guide runs the main job; in the middle, one of the nodes is set DOWN.
# Arguments: an empty directory with `batch_eval_cluster`, the job script, and the directory of `nats-server`.
set -euo pipefail
dir=$1 script=$2 PATH=$3:$PATH
cd "$dir"
mkdir state tmp
export TMPDIR=$dir/tmp

# Names resolve only if there is an interface besides the loopback one.
hostname node0
ip link set lo up
ip link add net0 type veth peer name net1
ip address add 10.99.0.1/24 dev net0
ip link set net0 up
ip link set net1 up
printf '127.0.0.1 localhost\n10.99.0.1 node0\n' > hosts
mount --bind hosts /etc/hosts

export SLURM_CONF=$dir/slurm.conf
cat > "$SLURM_CONF" <<CONF
ClusterName=xtask
SlurmctldHost=node0(10.99.0.1)
SlurmUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation=$dir/state
SlurmctldPidFile=$dir/slurmctld.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdSpoolDir=$dir/spool-%n
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmdLogFile=$dir/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/linear
MpiDefault=none
NodeName=n[1-3] NodeHostname=node0 NodeAddr=10.99.0.1 Port=[17001-17003] CPUs=1
PartitionName=all Nodes=ALL Default=YES State=UP
CONF
slurmctld -D -f "$SLURM_CONF" > slurmctld.out 2>&1 &
for node in n1 n2 n3; do
    slurmd -D -f "$SLURM_CONF" -N $node > slurmd-$node.out 2>&1 &
done

# Waits until a command succeeds.
wait_for() {
    local what=$1
    shift
    for _ in $(seq 1800); do
        "$@" > /dev/null 2>&1 && return
        sleep 0.1
    done
    echo "$what: not after three minutes" >&2
    tail -n 20 slurmctld.log job.out >&2
    exit 1
}
three_are_idle() { test "$(sinfo -h -N -t idle | wc -l)" = 3; }
# The leader prints its progress, with the number of nodes, and the first of them have answered.
three_are_at_work() { grep '3 nodes' job.out | grep -qv ' 0/'; }
job_ended() { ! squeue -h -j "$job" | grep -q .; }

wait_for 'three nodes' three_are_idle
./batch_eval_cluster --workers 2 --recs expected.csv > local.out
job=$(sbatch --parsable --nodes=3 --output=job.out "$script" --repeat "$4" --ack-wait 2)
wait_for 'three nodes at work' three_are_at_work
scontrol update NodeName=n3 State=DOWN Reason=test
echo "n3 is set DOWN in the middle of job $job"
wait_for 'the end of the job' job_ended
cat job.out
scontrol show job "$job" | grep -o 'JobState=.*'
sinfo -h -N
cmp expected.csv recs.csv
echo "recommendations equal those of one machine: $(wc -l < recs.csv) lines"
