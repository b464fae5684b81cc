#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317  # called by ok
# Disks on NBD servers that want TLS, with keys that both sides have.
set -euo pipefail
. "${top_srcdir:-.}/tests/functions.sh"
. "$top_srcdir/tests/nbd-functions.sh"
requires psktool

# Keys: alice's, which the server knows, and another alice's, which it does not.
# (Within reach of all: a build with sanitizers opens it as the worker's user.)
chmod 711 "$tmp"
keys() { psktool -u alice -p "$1" >/dev/null 2>&1 && chmod 644 "$1"; }
keys "$tmp/keys.psk"
keys "$tmp/other.psk"
# Of as many bytes as there may be, and of one more.
filled()
{
	cat "$tmp/keys.psk"
	printf '#%*s' $(($1 - 1 - $(stat -c %s "$tmp/keys.psk"))) ''
}
filled 65536 > "$tmp/full.psk"
filled 65537 > "$tmp/large.psk"
cat > "$tmp/xendiskd.conf" <<END
credentials "good" { psk = "$tmp/keys.psk" user = "alice" }
credentials "bad" { psk = "$tmp/other.psk" user = "alice" }
credentials "gone" { psk = "$tmp/no.psk" user = "alice" }
credentials "full" { psk = "$tmp/full.psk" user = "alice" }
credentials "large" { psk = "$tmp/large.psk" user = "alice" }
credentials "cert" { certs = "/nonexistent" }
disk "lost" { expr = "nbd(\"nbds://host/export\", credentials=lost)" }
disk "secret" { expr = "nbd(\"nbds+unix:///?socket=$sock\", credentials=good, fence=0s)" }
END

sim_start
daemon_start
d=$(domain)
tls_serves()
{
	nbdkit_serves --tls=require --tls-psk="$tmp/keys.psk" file "$tmp/image"
}
# refused PATTERN EXPR: it says so, and leaves nothing.
refused()
{
	local rc=0
	fails 1 "$1" attach "$2" || rc=$?
	detach || :
	return $rc
}

# --- TLS ---------------------------------------------------------------------------------------------
tls() { echo "nbd(\"nbds+unix:///?socket=$sock\", credentials=$1)"; }
tls_serves
ok "TLS by the name of the disk" attach @secret
ok "... is shown" shows TLS
guest "$d" xvdb verify --seconds 4 --depth 16 --size 16M > "$tmp/out" 2>&1 & load=$!
cleanup_pids+=("$load")
for _ in 1 2 3; do
	sleep 0.5
	tls_serves
done
ok "... and comes back, although the worker may open no file" load_ended
nbdkit_serves file "$tmp/image" # a server that has lost its TLS
does "write 0 4096 0x46" > "$tmp/out" 2>&1 & waiting=$!
cleanup_pids+=("$waiting")
ok "a server that has lost its TLS is not talked to in clear" eventually 10 condition_is paused
ok "... and says why" reason_is "TLS"
tls_serves
ok "... and the request is done when it has it again" request_done
detach
ok "a wrong key is refused" refused "handshake\|TLS\|gnutls" "$(tls bad)"
ok "a file of keys that is not there" refused "no.psk" "$(tls gone)"
ok "one that is too large" refused "large.psk: File too large" "$(tls large)"
ok "... and one that is not" attach "$(tls full)"
detach
ok "credentials that are not there" \
	refused 'no credentials "none" in the configuration' "$(tls none)"
ok "... which check says, too" fails 1 'at byte 4: nbd: there are no credentials "goof" .*; did you mean "good"?' \
	xendisk check "cow($(tls goof), mem(1G))"
ok "... and the daemon, of a disk of the configuration" grep -q \
	'xendiskd.conf:7: disk "lost" cannot be attached: .* no credentials "lost"' "$tmp/log"
ok "check: those that are there" says '^nbd(' xendisk check "$(tls good)"
ok "check: TLS without credentials" fails 1 'at byte 0: nbd: TLS needs credentials=NAME' \
	xendisk check nbds://host/export
ok "check: credentials in clear" fails 1 'are for TLS' \
	xendisk check 'nbd("nbd://host/export", credentials=good)'
ok "check: in clear without" says '^nbd(' xendisk check nbd://host/export
ok "check: a certificate that is made out to nobody" fails 1 'need a hostname here' \
	xendisk check "$(tls cert)"
ok "TLS without credentials" refused "needs credentials" \
	"nbds+unix:///?socket=$sock"
ok "a server that demands TLS, in clear" refused "TLS\|require\|policy" "$uri"
nbdkit_serves file "$tmp/image"
ok "a server without TLS is refused" refused "TLS" "$(tls good)"
ok "credentials in clear are a mistake" refused "are for TLS" \
	"nbd(\"$uri\", credentials=good)"
