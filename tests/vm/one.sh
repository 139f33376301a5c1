# one.sh FILE NAME: run one trial, and take away what it made.
set -euo pipefail
. /trials/kit.sh
. "$1"
trap finish EXIT
"trial_$2"
