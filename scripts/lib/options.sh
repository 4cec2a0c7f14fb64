# Reads the options of a script. Sourced after setup.sh, not run.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # the scripts read `value`, and set `caller_dir`

# Sets `value` to the value of an option: option_value "$@"
option_value() {
  [ $# -ge 2 ] && [ -n "$2" ] || usage_error "$1 requires a value"
  value=$2
}

# Fails because of wrong arguments.
usage_error() {
  say "$(basename "$0"): $*; see $(basename "$0") --help"
  exit 2
}

# Resolves a path relative to the caller's directory; the scripts change to the root of the repository.
caller_path() {
  case $1 in
    /*) printf '%s\n' "$1" ;;
    *) printf '%s\n' "$caller_dir/$1" ;;
  esac
}
