# Shared by the scripts for Kubernetes: settings, and kubectl with the right cluster. Sourced, not run.
# shellcheck shell=bash

# shellcheck source=scripts/lib/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# Reads the settings from the command line, with the environment as the default.
# shellcheck disable=SC2034 # read by the calling script
kind_settings() {
  port=${REVWALLET_KIND_PORT:-80}
  namespace=${REVWALLET_KIND_NAMESPACE:-revwallet}
  cluster=${REVWALLET_KIND_CLUSTER:-revwallet}
  image=${REVWALLET_KIND_IMAGE:-}
  overlay=${REVWALLET_KIND_OVERLAY:-demo}
  while [ $# -gt 0 ]; do
    case $1 in
      --port | --namespace | --cluster | --image | --overlay)
        [ $# -gt 1 ] || fail "$1 requires a value"
        printf -v "${1#--}" %s "$2"
        shift 2
        ;;
      *) fail "unknown option $1; $(sed -n 's/^# Usage: /usage: /p' "$0")" ;;
    esac
  done
  [[ $port =~ ^[0-9]+$ ]] || fail "--port requires a number, not $port"
  [[ $namespace$cluster =~ ^[a-z0-9-]+$ ]] || fail "--namespace and --cluster allow only lowercase letters, digits and hyphens"
  [ -d "kind/overlays/$overlay" ] || fail "kind/overlays/$overlay does not exist; choose one of: $(ls kind/overlays)"
}

# Runs kubectl with the cluster and namespace of the settings, independent of the current context.
kubectl_in_namespace() {
  kubectl --context "kind-$cluster" --namespace "$namespace" "$@"
}
