#!/bin/bash
# Two workers of one core each against one worker of one core, the same images a worker, alternating:
#
#   bash results/scaling.sh ROUNDS IMAGES RECIPE [KEY=VALUE]...
#
# IMAGES is each worker's share of the batch. Prints the images/s of every run, medians of its step events but the
# first.
set -eu
rounds=$1 images=$2
shift 2
runs=$(mktemp -d)
export ROTNET_RUNS_DIR=$runs TF_NUM_INTRAOP_THREADS=1

rate() { python -c '
import json, statistics, sys
events = map(json.loads, open(sys.argv[1]))
print(statistics.median([e["images_per_s"] for e in events if e["kind"] == "step"][1:]))' "$runs/$1/events.jsonl"; }

worker() {
    TF_CONFIG='{"cluster": {"worker": ["127.0.0.1:8470", "127.0.0.1:8471"]}, "task": {"type": "worker", "index": '$1'}}' \
        taskset -c "$1" rotnet-keras run "${@:3}" --name "$2" train.batch=$((2 * images)) > "$runs/$2-$1.log" 2>&1
}

for round in $(seq "$rounds"); do
    taskset -c 0 rotnet-keras run "$@" --name "one-$round" train.batch="$images" > "$runs/one-$round.log" 2>&1
    worker 1 "two-$round" "$@" &
    worker 0 "two-$round" "$@"
    wait
    echo "one worker $(rate "one-$round"), two workers $(rate "two-$round") images/s"
done
rm -r "$runs"
