#!/bin/sh
# Write the two Secrets of the base, made of docker/.env, to standard output:
#   sh docker/kubernetes/secrets.sh | kubectl apply --filename -
# The servers' has all of it; the one of workers and jobs has their two accounts, and no administrator's.
set -eu

cd "$(dirname "$0")/.."
value() { sed -n "s/^$1=//p" .env; }
secret() {
    kubectl create secret generic "$1" --namespace plumbline --from-env-file=/dev/stdin --dry-run=client --output yaml
}

grep -v '^#' .env | secret plumbline-servers
echo ---
secret plumbline <<END
PREFECT_API_AUTH_STRING=admin:$(value PREFECT_PASSWORD)
MLFLOW_TRACKING_URI=http://mlflow:5000
MLFLOW_TRACKING_USERNAME=worker
MLFLOW_TRACKING_PASSWORD=$(value MLFLOW_WORKER_PASSWORD)
END
