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
BEGIN { FS = "\t"; empty = "4b825dc642cb6eb9a060e54bf8d69288fbee4904" }
function tell() { if (commit != "" && paths != 1) { print commit ": " paths + 0 " paths"; bad = 1 } }
/^commit / { tell(); commit = substr($1, 8); paths = 0; split("", seen); commits++; next }
/^:/ {
	split($1, field, " ") # old mode, new mode, old id, new id, what
	tree = (field[1] == ":040000" || field[1] == ":000000") && (field[2] == "040000" || field[2] == "000000")
	leaf = !tree
	# An empty folder came, or went; but not one that became a folder with something in it.
	if (tree && (field[4] == empty || (field[3] == empty && field[2] == "000000"))) leaf = 1
	if (leaf && !($2 in seen)) { seen[$2] = 1; paths++ }
}
END { tell(); if (!commits) { print "no commits"; bad = 1 } if (bad) exit 1; print commits " commits, one path each" }'
