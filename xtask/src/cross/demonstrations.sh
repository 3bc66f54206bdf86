#!/bin/sh
# demonstrations.sh TARGET HERE RUNNER THERE RATINGS: shows that the example `batch_eval` on another platform (THERE,
# run by RUNNER) writes the same output as on this machine (HERE), whatever fails. It works in the current directory, and prints a line
# for each demonstration.
target=$1 here=$2 runner=$3 there=$4 ratings=$5
# A watchdog for one run.
limited="timeout --kill-after=10 --verbose 1800"
# More handles than a thread of Windows can wait for.
many=70
# How soon workers must exit after their leader.
after_leader_ms=2000

# evaluate WORKERS OUTPUT COMMAND...
evaluate() {
    workers=$1 output=$2
    shift 2
    [ ! -e few.csv ] || set -- "$@" --ratings few.csv
    "$@" --workers "$workers" --log error --progress none --recs "$output"
}

passed() {
    echo "shown   $1: $2"
}

failed() {
    echo "FAILED  $1: $2"
}

# same_output DESCRIPTION WORKERS
same_output() {
    output=there-$2.csv
    evaluate "$2" "$output" $limited "$runner" "$there" --report json > report.json
    if ! cmp -s here.csv "$output"; then
        failed "$1" "here.csv and $output in $PWD differ"
    elif ! grep -Eq "\"workers\": *$2\b" report.json; then
        failed "$1" "not $2 workers ran: $PWD/report.json"
    else
        passed "$1" "$(wc -c < "$output") bytes by $2 workers, identical"
    fi
}

crashed_worker() {
    what="a crashed worker costs one user"
    evaluate 2 crashed.csv $limited "$runner" "$there" --crash-user 15 >&2
    status=$?
    grep -v '^15,' here.csv > others.csv
    # One user has no list.
    if [ "$status" != 1 ]; then
        failed "$what" "a crash at user 15 must exit with status 1, not $status"
    elif cmp -s here.csv others.csv || ! cmp -s crashed.csv others.csv; then
        failed "$what" "a crash at user 15 did not cost only user 15"
    else
        passed "$what" "$(wc -c < others.csv) of $(wc -c < here.csv) bytes are left, the exit status is 1"
    fi
}

killed_leader() {
    what="a killed leader leaves no worker"
    "$runner" "$there" --repeat 1000000 --workers 3 --log debug --progress none > /dev/null 2> leader.log &
    leader=$!
    # Once workers log, they work.
    until grep -q evaluated leader.log || ! kill -0 "$leader" 2> /dev/null; do
        sleep 0.01
    done
    before=$("$runner" --processes "$there" | wc -l)
    killed=$(date +%s%3N)
    kill -KILL "$leader"
    wait "$leader" 2> /dev/null
    while :; do
        living=$("$runner" --processes "$there")
        took=$(($(date +%s%3N) - killed))
        if [ -z "$living" ] || [ $took -gt $after_leader_ms ]; then
            break
        fi
    done
    if [ "$before" != 4 ]; then
        failed "$what" "$before processes instead of a leader and 3 workers"
    elif [ -n "$living" ]; then
        failed "$what" "processes outlived their leader: $(echo $living)"
    else
        passed "$what" "3 workers were gone after $took ms"
    fi
}

case $target in
# All ratings take an emulator minutes.
*linux*) awk -F, 'NR == 1 || $1 <= 20' "$ratings" > few.csv ;;
esac
evaluate 2 here.csv "$here" >&2
if [ ! -s here.csv ]; then
    failed "recommendations on this machine" "none were written"
    exit
fi
same_output "the same recommendations as on this machine" 2
crashed_worker
case $target in
*windows*)
    same_output "more workers than a thread can wait for" $many
    killed_leader
    ;;
esac
