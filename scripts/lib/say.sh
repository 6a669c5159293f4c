# shellcheck shell=bash disable=SC2034
# How the scripts talk: one line before each step, errors on stderr. Sourced.

if [ -t 1 ]; then SAY_BOLD=$'\e[1m' SAY_RED=$'\e[31m' SAY_GREEN=$'\e[32m' SAY_OFF=$'\e[0m'
else SAY_BOLD='' SAY_RED='' SAY_GREEN='' SAY_OFF=''; fi

say() { printf '%s==>%s %s\n' "$SAY_BOLD" "$SAY_OFF" "$*"; }
note() { printf '    %s\n' "$*"; }
fail() { printf '%serror:%s %s\n' "$SAY_RED" "$SAY_OFF" "$*" >&2; exit 1; }
