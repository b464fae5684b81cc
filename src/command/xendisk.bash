# SPDX-License-Identifier: LGPL-2.1-or-later
# bash completion for xendisk(1): the command itself knows its tables.
_xendisk()
{
	local IFS=$'\n'
	# "--" keeps the words typed from being read as our own options.
	mapfile -t COMPREPLY < <(xendisk complete -- \
		"${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _xendisk xendisk
