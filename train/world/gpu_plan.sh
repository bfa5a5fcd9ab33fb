#!/bin/sh
# All stages of the open world in calls of a limited time: sh train/world/gpu_plan.sh SECONDS [things]
#
# Each call continues where the last one stopped: a stage is finished when its folder has an export, and a stage that
# reaches the time limit saves its state. RUNS, CACHE and DRAWINGS name the folders; PYTHON the interpreter.
# With OUT set, finished exports are copied there in pieces of 15 MB; join them with
#   cat weights.tar.part-* | tar x
set -eu
limit=$1
things=${2:-240}
runs=${RUNS:-runs/world}
cache=${CACHE:-cache/world/tokens}
drawings=${DRAWINGS:-cache/world/drawings.zip}
python=${PYTHON:-python}
threads=${THREADS:-$(nproc)}
start=$(date +%s)
export PYTHONUNBUFFERED=1

left() { echo $((limit - 30 - $(date +%s) + start)); }

# stage <name> <file that exists once it is finished> <options>: after SIGTERM the running step ends and the state is saved
stage() {
    name=$1 over=$2
    shift 2
    [ -e "$over" ] && return 0
    [ "$(left)" -lt 20 ] && return 0
    echo "== $name, $(left) s left"
    timeout -s TERM "$(left)" "$python" -m app train world "$name" --runs "$runs" --cache "$cache" \
        --drawings "$drawings" --things "$things" --threads "$threads" "$@" || [ $? -eq 124 ]
}

stage codes "$runs/codes/export/config.json" --steps "${CODES_STEPS:-2000}" --batch "${CODES_BATCH:-16}"
if [ -e "$runs/codes/export/config.json" ]; then
    stage reading "$runs/reading/export/config.json" --steps "${READING_STEPS:-1500}" --batch "${READING_BATCH:-96}"
    stage cache "$cache/complete" --steps "${CACHE_SCENES:-60000}"
    if [ -e "$cache/complete" ] && [ -e "$runs/reading/export/config.json" ]; then
        stage generator "$runs/generator/export/generator/config.json" --steps "${GENERATOR_STEPS:-12000}" \
            --batch "${GENERATOR_BATCH:-64}"
        stage decoder "$runs/decoder/export/config.json" --steps "${DECODER_STEPS:-5000}" --batch "${DECODER_BATCH:-8}"
    fi
fi
stage judge "$runs/judge/export/config.json" --steps "${JUDGE_STEPS:-4000}" --batch "${JUDGE_BATCH:-32}"

if [ -n "${OUT:-}" ]; then
    mkdir -p "$OUT"
    (cd "$runs" && find . -path '*/export/*' -type f | tar c -T -) | split -b 15m - "$OUT/weights.tar.part-"
    find "$runs" -name log.jsonl -exec sh -c 'tail -n 1 "$1"' _ {} \;
fi
for name in codes reading generator decoder judge; do
    found=$(find "$runs/$name/export" -name config.json 2>/dev/null | head -n 1)
    echo "$name: ${found:+over}${found:-not over}" | sed 's|over.*/.*|over|'
done
