#!/usr/bin/env bash
# Makes what lies beside this file anew, by the code of commit 3588486: PYTHON=.venv/bin/python bash tests/yesterday/make.sh
# Needs that commit in this clone, and packages of then (its requirements.txt). Hand-written: this file, README.md, *.cfg.
set -euo pipefail
COMMIT=3588486
here=$(cd "$(dirname "$0")" && pwd)
repository=$(git -C "$here" rev-parse --show-toplevel)
python=$(cd "$(dirname "${PYTHON:-$repository/.venv/bin/python}")" && pwd)/$(basename "${PYTHON:-python}")
place=$(mktemp -d)
trap 'rm -rf "$place"; git -C "$repository" worktree prune' EXIT
git -C "$repository" worktree add --quiet --detach "$place/code" "$COMMIT"
mkdir "$place/there" && cd "$place/there"
cp "$here"/*.cfg .
export OMP_NUM_THREADS=1
verb() { echo "== $*"; "$python" "$place/code/src/$1.py" "${@:2}"; }

verb demo ONLY=render CARS=4 TEST_CARS=1 WIDTH=96
verb folds RECIPE=tiny.cfg
verb cv RECIPE=tiny.cfg SLURM=1 FOLDS=0,1
verb cv RECIPE=tiny.cfg
verb tune RECIPE=tiny.cfg
verb inference RECIPE=tiny.cfg POSTPROCESS=tuned
verb submission RECIPE=tiny.cfg POSTPROCESS=tuned
verb search RECIPE=tiny.cfg,search.cfg TRIALS=2 VERIFY=0 NAME=searched

verb train RECIPE=tiny.cfg,smp.cfg FOLD=0 EXPERIMENT=smp
verb tester RECIPE=tiny.cfg,smp.cfg FOLD=0 EXPERIMENT=smp

verb train RECIPE=tiny.cfg,long.cfg FOLD=0 EXPERIMENT=whole
"$python" "$place/code/src/train.py" RECIPE=tiny.cfg,long.cfg FOLD=0 EXPERIMENT=stopped & training=$!
until [ "$(wc -l 2>/dev/null < lightning_logs/stopped/fold0_seed42/metrics.csv)" -ge 30 ]; do sleep 0.02; done 2>/dev/null
kill -TERM "$training"
wait "$training" || echo "== stopped, exit code $?"
test -f lightning_logs/stopped/fold0_seed42/checkpoints/last.ckpt
test ! -e lightning_logs/stopped/fold0_seed42/model.json

# what is rebuilt, or only looked at, or knows this computer: the cache, logs, the job array's script, pictures
rm -rf output/demo/cache output/demo/cv output/demo/slurm/*.sbatch lightning_logs/stopped/*/checkpoints/previous.ckpt
rm -rf lightning_logs/{demo,smp,whole}/*/checkpoints
find . -name '*.log' ! -name journal.log -delete
find lightning_logs output -name 'events.*' -delete
find output lightning_logs -name worst.png -delete
rm -f output/demo/*.png output/demo/predictions/*.png
find . -name '.*.lock' -o -name '*.lock' | xargs -r rm -f
rm -rf "$here/input" "$here/output" "$here/lightning_logs"
cp -r input output lightning_logs "$here"
du -sh "$here"
