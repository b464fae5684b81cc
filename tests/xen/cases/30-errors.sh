# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# A disk that cannot be: xl exits 1, says why, nothing hangs, and a detach
# clears the nodes that libxl leaves behind.

t 'error: a file that is not there' aB xendisk no_file
t 'error: a size that is no multiple of the sector' aB xendisk odd_size
t 'error: no such backend' Ab xendisk no_backend
t 'error: an expression that does not parse' aB xendisk no_parse
t 'error: an expression that is ill-typed' Ab xendisk ill_typed
t 'error: an unknown @name' aB xendisk no_name
t 'error: an image in use is refused, its holder named' aB xendisk in_use
t 'error: a bad disk line ends xl create, with the reason' aB xendisk bad_create
t 'error: a bad neighbour does not disturb a disk at work' aB xendisk neighbour

# rejected EXPR REASON: in seconds, not by a time-out of xl's.
rejected() {
	local start=$SECONDS
	guest pv
	refuse patient xl block-attach pv "$(spec xvdb "$1")"
	[ $((SECONDS - start)) -lt 30 ] ||
		fail "xl took $((SECONDS - start)) s to say: $output"
	has "xl's message" "$output" "$2"
	patient xl block-detach pv xvdb
	no_keys "$(domid pv)" xvdb
}

no_file() {
	rejected /srv/none.img '/srv/none\.img.*No such file'
	# The place is free for a disk that can be.
	attach pv xvdb 'mem(1M)'
	detach pv xvdb
}

odd_size() {
	image /srv/odd.img 1000001
	rejected /srv/odd.img '/srv/odd\.img.*(multiple|sector)'
	rm /srv/odd.img
}

no_backend() {
	rejected 'nosuch(1M)' 'nosuch'
}

no_parse() {
	rejected 'cow(/srv/gold.img' '(position|byte|expected)'
}

ill_typed() {
	rejected 'cow(/srv/gold.img, readonly(mem(48M)))' '(read-only|readonly|writ)'
}

no_name() {
	rejected @nobody 'nobody'
}

# Opened is not yet locked: the second guest gets its disk when it connects, so
# the reason is in xenstore and in the list, not in what xl prints.
in_use() {
	guest pv
	image /srv/d.img 32M
	attach pv xvdb /srv/d.img
	patient xl block-attach pv "$(spec xvdc /srv/d.img)" || :
	within 20 says_in_use
	gx -t 120 pv 'disk fio xvdb'
	patient xl block-detach pv xvdc
	no_keys "$(domid pv)" xvdc
	detach pv xvdb
	rm /srv/d.img
}

says_in_use() {
	xendisk show pv xvdc 2>&1 | grep -qiE 'in use|busy|lock'
}

bad_create() {
	local start=$SECONDS
	refuse mkguest bad "disk = [ '$(spec xvdb /srv/none.img)' ]"
	[ $((SECONDS - start)) -lt 60 ] || fail "took $((SECONDS - start)) s"
	has "xl's message" "$output" 'No such file'
	refuse xl domid bad
}

neighbour() {
	local i
	guest pv
	attach pv xvdc 'mem(32M)'
	gx pv '(disk fio xvdc && echo fine) >/tmp/neighbour 2>&1 &'
	for ((i = 0; i < 3; i++)); do
		refuse patient xl block-attach pv "$(spec xvdb /srv/none.img)"
		patient xl block-detach pv xvdb
	done
	within 60 gx pv 'grep -q fine /tmp/neighbour'
	detach pv xvdc
}
