#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What the compiler made of ring.c: nothing that reads and writes the guest's
# memory in one instruction. (How often its bytes are read: unit/test-fetch.)
. "$(dirname "$0")/functions.sh"
requires objdump ar

case $(uname -m) in
x86_64) ;;
*) skip_all "knows x86_64 code only" ;;
esac

# code ARCHIVE: the instructions of its ring.c, one a line.  automake puts the
# archive's name before the member's when it has flags of its own.
code()
{
	local member
	member=$(ar t "$1" | grep -xE '([a-z_]+-)?ring\.o')
	ar p "$1" "$member" > "$tmp/ring.o" &&
		objdump -d --no-show-raw-insn "$tmp/ring.o" |
		sed -n 's/^ *[0-9a-f]*:\t//p'
}

# A locked instruction on its own stack is how a fence is spelled. xchg with
# memory is locked without saying so; with a register twice it does nothing.
atomic_on_memory()
{
	grep -E '^(lock|x(chg|add)|cmpxchg)' |
		grep -vE '^lock or[a-z]* +\$0x0,(-?0x[0-9a-f]+)?\(%[re]sp\)$' |
		grep -E '\('
}

nothing_atomic()
{
	local found
	[ "$(code "$1" | wc -l)" -gt 100 ] || return 1
	found=$(code "$1" | atomic_on_memory) || return 0
	echo "$found"
	return 1
}

is_noticed() { atomic_on_memory <<< "$1" >/dev/null; }
is_allowed() { ! is_noticed "$1"; }

ok "ring.c: no instruction that reads and writes shared memory at once" \
	nothing_atomic "$top_builddir/src/worker/libworker.a"
ok "a locked addition is noticed" is_noticed 'lock addl $0x1,0x10(%rdi)'
ok "an exchange is noticed" is_noticed 'xchg %eax,(%rdi)'
ok "a fence is none of these" is_allowed 'lock orq $0x0,(%rsp)'
ok "padding is none of these" is_allowed 'xchg   %ax,%ax'
