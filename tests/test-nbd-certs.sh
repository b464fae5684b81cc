#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317,SC2034,SC2016  # called by ok; for certificate, for sh
# Disks on NBD servers that have certificates: whose they are is looked at, by
# an isolated worker, on each connection.
set -euo pipefail
. "${top_srcdir:-.}/tests/functions.sh"
. "$top_srcdir/tests/nbd-functions.sh"
requires certtool nbdinfo
! grep -q "built without certificates" "$top_builddir/backends/.libs/nbd.so" ||
	skip_all "built without GnuTLS"

# --- Folders: what a server has, and what we have ----------------------------------------------
chmod 711 "$tmp"
certs=$tmp/all
mkdir "$certs"
server_is=$'tls_www_server\nsigning_key\ndns_name = localhost\nip_address = 127.0.0.1'
certificate ca self $'ca\ncert_signing_key\ncrl_signing_key'
certificate stranger self $'ca\ncert_signing_key'
certificate good ca "$server_is"
certificate lost ca "$server_is"
certificate forged stranger "$server_is"
certificate old ca "$server_is" $'activation_date = "2020-01-01 00:00:00"\nexpiration_date = "2021-01-01 00:00:00"'
certificate other ca $'tls_www_server\nsigning_key\ndns_name = other.example'
certificate client ca $'tls_www_client\nsigning_key'
echo 'expiration_days = 9' > "$tmp/template"
certtool --generate-crl --load-ca-privkey "$certs/ca-key.pem" \
	--load-ca-certificate "$certs/ca-cert.pem" \
	--load-certificate "$certs/lost-cert.pem" --template "$tmp/template" \
	--outfile "$certs/ca-crl.pem" 2> /dev/null
for name in good lost forged old other; do
	mkdir "$tmp/$name"
	cp "$certs/$name-cert.pem" "$tmp/$name/server-cert.pem"
	cp "$certs/$name-key.pem" "$tmp/$name/server-key.pem"
	cp "$certs/ca-cert.pem" "$tmp/$name/ca-cert.pem"
done
mkdir "$tmp/ours" "$tmp/known" "$tmp/empty" "$tmp/broken" "$tmp/astray"
cp "$certs/ca-cert.pem" "$certs/ca-crl.pem" "$tmp/ours"
cp "$certs"/{ca,client}-{cert,key}.pem "$tmp/known"
echo nonsense > "$tmp/broken/ca-cert.pem"
cp "$certs/ca-cert.pem" "$tmp/astray"
ln -s nowhere "$tmp/astray/ca-crl.pem"
cp -r "$tmp/known" "$tmp/mixed"
cp "$certs/good-key.pem" "$tmp/mixed/client-key.pem"
cat > "$tmp/xendiskd.conf" <<END
credentials "ours" { certs = "$tmp/ours" hostname = "localhost" }
credentials "known" { certs = "$tmp/known" hostname = "localhost" }
credentials "elsewhere" { certs = "$tmp/ours" hostname = "other.example" }
credentials "uri" { certs = "$tmp/ours" }
credentials "empty" { certs = "$tmp/empty" hostname = "localhost" }
credentials "broken" { certs = "$tmp/broken" hostname = "localhost" }
credentials "astray" { certs = "$tmp/astray" hostname = "localhost" }
credentials "mixed" { certs = "$tmp/mixed" hostname = "localhost" }
disk "secret" { expr = "nbd(\"nbds+unix:///?socket=$sock\", credentials=ours, fence=0s)" }
END

sim_start
daemon_start
d=$(domain)
certs_serve() { # WHOSE OPTION...
	nbdkit_serves --tls=require --tls-certificates="$tmp/$1" "${@:2}" \
		file "$tmp/image"
}
with() { echo "nbd(\"nbds+unix:///?socket=$sock\", credentials=$1)"; }
# refused PATTERN EXPR: it says so, and leaves nothing.
refused()
{
	local rc=0
	fails 1 "$1" attach "$2" || rc=$?
	detach || :
	return $rc
}

# --- One that is right ---------------------------------------------------------------------------
certs_serve good
ok "a server with a good certificate" attach @secret
ok "... is shown" shows TLS
guest "$d" xvdb verify --seconds 4 --depth 16 --size 16M > "$tmp/out" 2>&1 & load=$!
cleanup_pids+=("$load")
for _ in 1 2 3; do
	sleep 0.5
	certs_serve good
done
ok "... and comes back, although the worker is isolated" load_ended

# --- ... and comes back with another -----------------------------------------------------------------
comes_back() # WHOSE REASON
{
	certs_serve "$1"
	does "write 0 4096 0x47" > "$tmp/out" 2>&1 & waiting=$!
	cleanup_pids+=("$waiting")
	ok "it comes back, $1: not used" eventually 20 reason_is "$2"
	certs_serve good
	ok "... and the request is done when it is itself again" request_done
}
comes_back forged "certificate issuer is unknown"
comes_back old "expired"
nbdkit_serves file "$tmp/image"
does "write 0 4096 0x46" > "$tmp/out" 2>&1 & waiting=$!
cleanup_pids+=("$waiting")
ok "in clear: not used" eventually 20 reason_is "it has no TLS, which is required"
certs_serve good
ok "... and the request is done" request_done
detach

# --- Ours -------------------------------------------------------------------------------------------
ok "a name that is not the server's" \
	refused "other.example: .*does not match" "$(with elsewhere)"
ok "no name at all" refused "the credentials need a hostname" "$(with uri)"
ok "a folder without certificates" refused "empty/ca-cert.pem" "$(with empty)"
ok "a certificate that is none" refused "broken/ca-cert.pem" "$(with broken)"
ok "a link to no list of who is revoked" \
	refused "astray/ca-crl.pem" "$(with astray)"
ok "a key that is another's" \
	refused "mixed/client-cert.pem or client-key.pem: " "$(with mixed)"
ok "credentials in clear are a mistake" refused "are for TLS" \
	"nbd(\"$uri\", credentials=ours)"

# --- The server's --------------------------------------------------------------------------------------
certs_serve forged
ok "one that a stranger has signed" \
	refused "NOT trusted.*issuer is unknown" "$(with ours)"
certs_serve old
ok "one that has expired" refused "NOT trusted.*expired" "$(with ours)"
certs_serve other
ok "one for another host" refused "localhost: .*does not match" "$(with ours)"
ok "... which is good as that" attach "$(with elsewhere)"
detach
certs_serve lost
ok "one that was revoked" refused "NOT trusted.*revoked" "$(with ours)"
ok "... as only the list tells" attach "$(with known)"
detach
nbdkit_serves file "$tmp/image"
ok "a server without TLS" refused "it has no TLS, which is required" "$(with ours)"
certs_serve good --tls-verify-peer
ok "a server that knows us" attach "$(with known)"
ok "... and works" does "write 0 4096 0x48" "read 0 4096 0x48"
detach
ok "... and does not" refused "our certificate\|TLS: it says" "$(with ours)"

# --- By the URI ------------------------------------------------------------------------------------------
tcp_serves() # WHOSE: at 127.0.0.1, $port
{
	local i
	for ((i = 0; i < 20; i++)); do
		port=$((20000 + RANDOM % 12000))
		end_server
		nbdkit -f -i 127.0.0.1 -p $port --tls=require \
			--tls-certificates="$tmp/$1" file "$tmp/image" \
			>> "$tmp/server.log" 2>&1 8>&- &
		server=$!
		cleanup_pids+=("$server")
		eventually 3 port_listens && return
	done
}
# By that very process; the port may be another's.
port_listens() { kill -0 "$server" && grep -qi ":$(printf %04x $port) .* 0A " /proc/net/tcp; }
tcp_serves good
ok "the host of the URI: its address" \
	attach "nbd(\"nbds://127.0.0.1:$port/\", credentials=uri)"
ok "... and works" does "write 0 4096 0x49" "read 0 4096 0x49"
detach
tcp_serves other
ok "... and not another's" refused "127.0.0.1: .*does not match" \
	"nbd(\"nbds://127.0.0.1:$port/\", credentials=uri)"

# --- Without Xen --------------------------------------------------------------------------------------------
serves() { "$top_builddir/xendisk" serve --config "$tmp/xendiskd.conf" \
	--backend-dir "$top_builddir/backends/.libs" "$1" \
	--run 'nbdinfo --size "$uri"'; }
certs_serve good
ok "xendisk serve: by name" says 33554432 serves @secret
ok "... and as an expression" says 33554432 serves "$(with known)"
ok "... whose credentials are there" fails 1 'no credentials "none"' serves "$(with none)"
ok "... and right" fails 1 "does not match" serves "$(with elsewhere)"
