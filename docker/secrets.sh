#!/bin/sh
# Make .env beside this script out of .env.example, with a random value for each name that has none.
set -eu

cd "$(dirname "$0")"
umask 077
if [ -e .env ]; then
    echo "docker/.env exists; its secrets are in use, so change them by hand" >&2
    exit 1
fi
while IFS= read -r line; do
    case $line in
        *=) printf '%s%s\n' "$line" "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')" ;;
        *) printf '%s\n' "$line" ;;
    esac
done < .env.example > .env.new
mv .env.new .env
