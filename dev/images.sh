# The names of the two images and the base of both, for scripts. Sourced.

_version=$(sed -n 's/^VERSION = "\(.*\)"/\1/p' "$(dirname "${BASH_SOURCE[0]}")/../orchestrator/version.py")
RUNTIME_IMAGE=${PERSTACK_RUNTIME_IMAGE:-perstack-orch-runtime:$_version}
ORCHESTRATOR_IMAGE=${PERSTACK_ORCHESTRATOR_IMAGE:-perstack-orch:$_version}

# `make engine` makes this image if no registry is reachable.
if [ -z "${PERSTACK_BASE_IMAGE:-}" ] && docker image inspect local/python:3.11 >/dev/null 2>&1; then
  PERSTACK_BASE_IMAGE=local/python:3.11
fi
export PERSTACK_BASE_IMAGE

# The size of an image in MB, with its base.
size() { docker image inspect --format '{{.Size}}' "$1" | sed 's/......$//'; }
