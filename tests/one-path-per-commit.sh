#!/bin/sh
# Checks invariant I1 on a repository: every commit but merges differs from its parent in just one path, be it a file, a
# link or an empty folder (an entry with git's empty tree).
#
#   one-path-per-commit.sh [DIR]      exit 0: it holds; 1: it does not, the commits are listed
#
# An empty folder that gets its first file stops being an entry of its own: git cannot hold both, so that is one change.
set -eu
cd "${1:-.}"
git log --no-merges --root --raw -r -t --no-renames --no-abbrev --format='commit %H' refs/heads/main | awk '
function tell() { if (commit != "" && paths != 1) { print commit ": " paths + 0 " paths"; bad = 1 } }
BEGIN { empty = "4b825dc642cb6eb9a060e54bf8d69288fbee4904" }
/^commit / { tell(); commit = $2; paths = 0; commits++; next }
/^:/ {
	tree = ($1 == ":040000" || $1 == ":000000") && ($2 == "040000" || $2 == "000000")
	if (!tree) paths++
	else if ($3 == empty && $2 == "000000") paths++
	else if ($4 == empty && $1 == ":000000") paths++
	else if ($4 == empty || $3 == empty) { if ($4 == empty) paths++ }
}
END { tell(); if (!commits) { print "no commits"; bad = 1 } if (bad) exit 1; print commits " commits, one path each" }'
