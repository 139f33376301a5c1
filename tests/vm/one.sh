# one.sh FILE NAME: run one trial, and take away what it made.
set -euo pipefail
. /trials/kit.sh
. "$1"
# What a trial that ran out of time left behind.
[ -z "$(ip netns list)" ] || (finish)
# Apart, so that the trial's figures stay the last line.
trap 'finish >/run/tidied 2>&1' EXIT
trap 'fail "out of time"' TERM
"trial_$2"
